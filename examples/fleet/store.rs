//! A `redis-server` of its own.
//!
//! Between the two stands a keeper, which is this program too: it ends the server when its standard input ends, so that none
//! is left behind even by a SIGKILL.

use std::{
    env,
    ffi::OsString,
    io,
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tower::BoxError;

use crate::workers::this_program;

/// Names the program, where it is not in `PATH`.
const PROGRAM: &str = "REDIS_SERVER";

/// It keeps nothing on the disk, and ends with this value.
pub(crate) struct Redis {
    port: u16,
    keeper: Child,
}

impl Redis {
    /// Starts one on a free port of loopback.
    pub(crate) async fn start() -> Result<Self, BoxError> {
        look_for_program()?;
        // Somebody else may take the port before the server does.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            let keeper = spawn_keeper(port)?;
            let mut redis = Self { port, keeper };
            if redis.answers().await? {
                return Ok(redis);
            }
        }
        Err("redis-server ends as soon as it is started".into())
    }

    /// SIGKILL: connections are cut, and what it knew is gone.
    pub(crate) fn kill(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }

    /// Starts it again on its port.
    pub(crate) async fn restart(&mut self) -> Result<(), BoxError> {
        for _ in 0..50 {
            self.kill();
            self.keeper = spawn_keeper(self.port)?;
            if self.answers().await? {
                return Ok(());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Err("redis-server does not start again on its port".into())
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Waits until it answers; `false` if it ended.
    async fn answers(&mut self) -> Result<bool, BoxError> {
        let until = Instant::now() + Duration::from_secs(20);
        while self.keeper.try_wait()?.is_none() {
            if reach(&self.url()).await.is_ok() {
                return Ok(true);
            }
            if Instant::now() > until {
                return Err("redis-server does not answer".into());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(false)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether there is a Redis.
pub(crate) async fn reach(url: &str) -> Result<(), redis::RedisError> {
    let client = redis::Client::open(url)?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    redis::cmd("PING").query_async(&mut connection).await
}

fn spawn_keeper(port: u16) -> io::Result<Child> {
    this_program()?
        .args(["keeper", "--port", &port.to_string()])
        .spawn()
}

/// The keeper: runs a server until its standard input ends, or the server does.
pub(crate) fn keep(port: u16) -> Result<(), BoxError> {
    let mut server = spawn_server(port)?;
    let (ends, ended) = channel::<()>();
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        drop(ends);
    });
    while server.try_wait()?.is_none() {
        let look_again = Duration::from_millis(100);
        if ended.recv_timeout(look_again) == Err(RecvTimeoutError::Disconnected) {
            server.kill()?;
            server.wait()?;
        }
    }
    Ok(())
}

fn spawn_server(port: u16) -> io::Result<Child> {
    Command::new(program())
        .current_dir(env::temp_dir())
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
}

fn program() -> OsString {
    env::var_os(PROGRAM).unwrap_or_else(|| "redis-server".into())
}

/// Fails where the program is not there.
fn look_for_program() -> Result<(), BoxError> {
    let run = Command::new(program())
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    run.map(drop).map_err(|error| {
        format!(
            "{}: {error}: install it (`apt install redis-server`, `brew install redis`), name it in {PROGRAM}, or give \
             --redis URL",
            program().to_string_lossy()
        )
        .into()
    })
}
