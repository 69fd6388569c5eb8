//! The file of prompts.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader},
};

use serde_json::Value;
use tower_ploton::{IdempotencyKey, api::NewTask};

use super::args::Options;

/// A line that is a task.
pub(crate) struct Line {
    /// Counted from 1.
    pub(crate) number: u64,
    pub(crate) key: IdempotencyKey,
    pub(crate) task: NewTask,
}

/// A line that is none.
pub(crate) struct BadLine {
    pub(crate) number: u64,
    pub(crate) why: String,
}

/// The lines of a file, but for the blank ones. They are read as they are asked for.
pub(crate) struct Lines {
    file: BufReader<File>,
    name: String,
    json: bool,
    number: u64,
}

impl Lines {
    /// What a fake creates has keys of its own: it is no task for a real Ploton.
    pub(crate) fn open(options: &Options) -> io::Result<Self> {
        let path = &options.prompts;
        // Of a pipe nothing would be left after the first look, and its name says nothing.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("it is no file that can be read twice"));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self {
            file: BufReader::new(File::open(path)?),
            // No file's name has a slash.
            name: format!("{}{name}", if options.fake { "fake/" } else { "" }),
            json: options.json_lines,
            number: 0,
        })
    }

    /// The next line; `None` at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Result<Line, BadLine>>> {
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            if self.file.read_until(b'\n', &mut bytes)? == 0 {
                return Ok(None);
            }
            self.number += 1;
            if self.number == 1 && bytes.starts_with(BYTE_ORDER_MARK) {
                bytes.drain(..BYTE_ORDER_MARK.len());
            }
            if !bytes.trim_ascii().is_empty() {
                break;
            }
        }
        let number = self.number;
        let line = self.read(&bytes).map_err(|why| BadLine { number, why });
        Ok(Some(line))
    }

    fn read(&self, bytes: &[u8]) -> Result<Line, String> {
        let text = std::str::from_utf8(bytes.trim_ascii()).map_err(|error| error.to_string())?;
        let task = if self.json {
            json_task(text)?
        } else {
            NewTask::new(text).map_err(|error| error.to_string())?
        };
        let number = self.number.to_string();
        let key = IdempotencyKey::derive_from(["bulk_submit", &self.name, &number, text]);
        Ok(Line {
            number: self.number,
            key: key.clone(),
            task: task.idempotency_key(key),
        })
    }
}

/// `"a prompt"` or `{"prompt":"a prompt",…}`, whose other fields are sent as they are.
fn json_task(text: &str) -> Result<NewTask, String> {
    let line: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let (prompt, more) = match line {
        Value::String(prompt) => (Some(prompt), None),
        Value::Object(mut fields) => match fields.remove("prompt") {
            Some(Value::String(prompt)) => (Some(prompt), Some(fields)),
            _ => (None, None),
        },
        _ => (None, None),
    };
    let prompt = prompt.ok_or("it has no \"prompt\" that is a text")?;
    if prompt.trim().is_empty() {
        return Err("its prompt is empty".to_owned());
    }
    let task = NewTask::new(prompt).map_err(|error| error.to_string())?;
    let more = more.unwrap_or_default().into_iter();
    Ok(more.fold(task, |task, (name, value)| task.field(name, value)))
}

/// What editors put before the first line, and what is no part of it.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
