//! A Lua script that the server keeps, and is sent again when it lost it.

use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};

use super::link::Connection;

/// A script and its name: its SHA-1.
#[derive(Debug)]
pub(crate) struct Script {
    code: &'static str,
    sha1: String,
}

impl Script {
    pub(crate) fn new(code: &'static str) -> Self {
        Self {
            code,
            sha1: redis::Script::new(code).get_hash().to_owned(),
        }
    }

    /// Runs it on the server: by its name, and with its text where the server doesn't know it (any more). Not by
    /// `SCRIPT LOAD`: that is one round trip more, and a cluster's other nodes would be asked to load it too.
    pub(super) async fn run(
        &self,
        connection: &mut dyn Connection,
        keys: &[String],
        args: &[String],
    ) -> Result<Value, RedisError> {
        let by_name = self.command("EVALSHA", &self.sha1, keys, args);
        match connection.request(&by_name).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                let by_text = self.command("EVAL", self.code, keys, args);
                connection.request(&by_text).await
            }
            result => result,
        }
    }

    fn command(&self, eval: &str, script: &str, keys: &[String], args: &[String]) -> Cmd {
        let mut command = redis::cmd(eval);
        command.arg(script).arg(keys.len()).arg(keys).arg(args);
        command
    }
}
