//! Real `redis-server` processes on loopback.

use std::{
    collections::BTreeSet,
    env, fs, io,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, Connection, FromRedisValue, Pipeline, RedisError,
    RedisFuture, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

/// Names the program, where it is not in `PATH`.
const PROGRAM: &str = "REDIS_SERVER";

/// A server with a port and a folder of its own. It ends with this value.
pub(crate) struct Redis {
    port: u16,
    folder: PathBuf,
    options: Vec<String>,
    child: Child,
}

impl Redis {
    /// Starts one that keeps nothing on the disk.
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// Starts one with options of its own, such as `["--requirepass", "secret"]`.
    pub(crate) async fn with(options: &[&str]) -> Self {
        static FOLDERS: AtomicU32 = AtomicU32::new(0);
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let folder = env::temp_dir().join(format!(
            "tower-ploton-redis-{}-{number}",
            std::process::id()
        ));
        let options: Vec<_> = options.iter().map(ToString::to_string).collect();
        // Somebody else may take the port before the server does.
        for _ in 0..10 {
            let port = free_port();
            fs::create_dir_all(&folder).unwrap();
            let mut redis = Self {
                port,
                child: spawn(port, &folder, &options),
                folder: folder.clone(),
                options: options.clone(),
            };
            if redis.listens().await {
                return redis;
            }
        }
        panic!("redis-server does not start");
    }

    /// Starts it again on its port, after [`kill`](Self::kill).
    pub(crate) async fn restart(&mut self) {
        for _ in 0..100 {
            self.child = spawn(self.port, &self.folder, &self.options);
            if self.listens().await {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
        panic!("redis-server does not start again on port {}", self.port);
    }

    /// SIGKILL: connections are cut, and what it knew is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGSTOP: it accepts connections, and answers nothing.
    pub(crate) fn hang(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT: it goes on with all that it was sent.
    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub(crate) fn client(&self) -> Client {
        Client::open(self.url()).unwrap()
    }

    /// A connection for the test's own commands.
    pub(crate) async fn connection(&self) -> MultiplexedConnection {
        connection(&self.client()).await.unwrap()
    }

    /// Runs a command: its words, separated by spaces.
    pub(crate) async fn run(&self, command: &str) -> Value {
        self.try_run(command).await.unwrap()
    }

    pub(crate) async fn try_run(&self, command: &str) -> Result<Value, RedisError> {
        self.try_run_at(&self.url(), command).await
    }

    /// The same, by a URL with a password.
    pub(crate) async fn try_run_at(&self, url: &str, command: &str) -> Result<Value, RedisError> {
        let mut connection = connection(&Client::open(url)?).await?;
        let mut words = command.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        command.arg(words.collect::<Vec<_>>());
        command.query_async(&mut connection).await
    }

    /// Makes it a replica of `master`, and waits until it has all that the master has.
    pub(crate) async fn follow(&self, master: &Self) {
        self.run(&format!("REPLICAOF 127.0.0.1 {}", master.port))
            .await;
        loop {
            let info: String = self.answer("INFO replication").await;
            if info.contains("master_link_status:up") {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// What a command answers.
    pub(crate) async fn answer<T: FromRedisValue>(&self, command: &str) -> T {
        T::from_redis_value(self.run(command).await).unwrap()
    }

    /// Whether it answers, before it ends.
    async fn listens(&mut self) -> bool {
        loop {
            // Any answer will do: it may want a password, or be loading.
            match self.try_run("PING").await {
                Ok(_) => return true,
                Err(error) if !error.is_io_error() => return true,
                Err(_) => {}
            }
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn spawn(port: u16, folder: &PathBuf, options: &[String]) -> Child {
    let program = env::var_os(PROGRAM).unwrap_or_else(|| "redis-server".into());
    let log = fs::File::create(folder.join("log")).unwrap();
    let child = Command::new(&program)
        .current_dir(folder)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--enable-debug-command", "yes"])
        .args(["--repl-diskless-sync-delay", "0"])
        .args(options)
        .stdin(Stdio::null())
        .stdout(log)
        .spawn();
    match child {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => panic!(
            "{} is not there: install redis-server, or name the program in {PROGRAM}",
            program.to_string_lossy()
        ),
        Err(error) => panic!("{}: {error}", program.to_string_lossy()),
    }
}

/// A port that nobody listens on, and that no other test was given.
pub(crate) fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        if GIVEN.lock().unwrap().insert(port) {
            return port;
        }
    }
}

/// A connection that waits as long as a slow machine takes.
async fn connection(client: &Client) -> Result<MultiplexedConnection, RedisError> {
    let patience = Some(Duration::from_secs(60));
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(patience)
        .set_response_timeout(patience);
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

/// A connection whose answers are there at once, since it keeps the thread waiting for them: whoever gives up after some time
/// never does.
pub(crate) fn patiently(client: Client) -> impl ConnectionLike + Clone + Send + Sync + 'static {
    Patient(Arc::new(Mutex::new(client.get_connection().unwrap())))
}

#[derive(Clone)]
struct Patient(Arc<Mutex<Connection>>);

impl ConnectionLike for Patient {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        let answer = command.query(&mut *self.0.lock().unwrap());
        Box::pin(async { answer })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        _: &'a Pipeline,
        _: usize,
        _: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        panic!("a pipeline")
    }

    fn get_db(&self) -> i64 {
        0
    }
}
