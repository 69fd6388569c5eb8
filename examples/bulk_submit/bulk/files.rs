//! Files of JSON lines that only grow, and survive a crash.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
    thread,
};

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tower::BoxError;

/// Adds lines to a file. A line that was added is on the disk; those that come meanwhile are synced together.
#[derive(Clone, Debug)]
pub(crate) struct Appender(mpsc::UnboundedSender<Added>);

#[derive(Debug)]
struct Added {
    line: String,
    done: oneshot::Sender<io::Result<()>>,
}

impl Appender {
    pub(crate) fn to(file: File) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        thread::spawn(move || write(file, receiver));
        Self(sender)
    }

    /// Adds a line. It returns when the disk has it.
    pub(crate) async fn add(&self, line: &Value) -> io::Result<()> {
        let (done, is_done) = oneshot::channel();
        let line = format!("{line}\n");
        let gone = || io::Error::other("an earlier line could not be written");
        self.0.send(Added { line, done }).map_err(|_| gone())?;
        is_done.await.map_err(|_| gone())?
    }
}

/// Opens a file for adding, and has `learn` read the lines that it has, which says `None` of one that is not ours. Half a line
/// at its end, of a program that was killed, is cut off.
pub(crate) fn open(
    path: &Path,
    learn: impl FnMut(&Value) -> Option<()>,
) -> Result<Appender, BoxError> {
    let named = |error: BoxError| format!("{}: {error}", path.display());
    Ok(Appender::to(read(path, learn).map_err(named)?))
}

/// Another file may be named by mistake, such as the prompts: it stays as it is.
fn read(path: &Path, mut learn: impl FnMut(&Value) -> Option<()>) -> Result<File, BoxError> {
    let mut options = OpenOptions::new();
    let mut file = options.create(true).append(true).open(path)?;
    // The file's name must be on the disk, too.
    if let Some(folder) = path.parent().filter(|_| cfg!(unix)) {
        let is_here = folder.as_os_str().is_empty();
        File::open(if is_here { Path::new(".") } else { folder })?.sync_all()?;
    }
    let text = fs::read(path)?;
    let whole = text.iter().rposition(|byte| *byte == b'\n');
    let (whole, last) = text.split_at(whole.map_or(0, |end| end + 1));
    let mut number = 0;
    let mut learn = |line: &Value| {
        number += 1;
        learn(line).ok_or_else(|| format!("line {number}: this is none of ours: {line}"))
    };
    for (number, line) in whole.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let line = serde_json::from_slice(line);
        learn(&line.map_err(|error| format!("line {}: {error}", number + 1))?)?;
    }
    if let Ok(line) = serde_json::from_slice(last) {
        // An editor took the end of the last line away.
        learn(&line)?;
        file.write_all(b"\n")?;
    } else if !matches!(last, [] | [b'{'] | [b'{', b'"', ..]) {
        return Err(format!("line {}: it is no JSON object", number + 1).into());
    } else if !last.is_empty() {
        file.set_len(whole.len() as u64)?;
    }
    Ok(file)
}

/// Writes what comes, until nobody can add anything. After an error nothing more is written.
fn write(mut file: File, mut added: mpsc::UnboundedReceiver<Added>) {
    while let Some(first) = added.blocking_recv() {
        let mut text = first.line;
        let mut waiting = vec![first.done];
        while let Ok(next) = added.try_recv() {
            text.push_str(&next.line);
            waiting.push(next.done);
        }
        let written = file
            .write_all(text.as_bytes())
            .and_then(|()| file.sync_data());
        let failed = written.as_ref().err().map(ToString::to_string);
        for done in waiting {
            let result = failed
                .clone()
                .map_or(Ok(()), |why| Err(io::Error::other(why)));
            let _ = done.send(result);
        }
        if failed.is_some() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_line_that_could_not_be_written_is_told_and_none_is_written_after_it() {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bulk_read_only.jsonl");
        fs::write(&file, "").unwrap();
        let appender = Appender::to(File::open(&file).unwrap());
        for line in 1..=3 {
            assert!(appender.add(&json!({ "line": line })).await.is_err());
        }
        assert_eq!(fs::read(&file).unwrap(), b"");
    }

    #[test]
    fn a_file_of_something_else_stays_as_it_is() {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bulk_not_ours.txt");
        let ours = |line: &Value| line.get("line").map(|_| ());
        for text in [
            "Summarise invoice 1",
            "{\"line\":1}\nSummarise",
            "Pay\n{\"half",
            "{{customer}} wants their money back",
            // The last line of these prompts was cut off.
            "{\"prompt\":\"a\"}\n{\"prompt\":\"b\"}",
            "{\"prompt\":\"a\"}\n{\"prom",
            "{\"prompt\":\"a\"}",
        ] {
            fs::write(&file, text).unwrap();
            assert!(read(&file, ours).is_err(), "{text:?}");
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
        let whole = "{\"line\":1}\n";
        for half in ["", "{", "{\"", "{\"line\":2"] {
            fs::write(&file, format!("{whole}{half}")).unwrap();
            read(&file, ours).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), whole, "{half:?}");
        }
        fs::write(&file, whole.trim_end()).unwrap();
        read(&file, ours).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), whole);
    }

    #[tokio::test]
    async fn lines_that_come_together_are_all_in_the_file_when_they_are_told_to_be() {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bulk_together.jsonl");
        let _ = fs::remove_file(&file);
        let appender = open(&file, |_| None).unwrap();
        let mut adding = tokio::task::JoinSet::new();
        for line in 0..100 {
            let (appender, file) = (appender.clone(), file.clone());
            adding.spawn(async move {
                let line = json!({ "line": line });
                appender.add(&line).await.unwrap();
                let text = fs::read_to_string(file).unwrap();
                assert!(text.contains(&format!("{line}\n")));
            });
        }
        adding.join_all().await;
        let mut count = 0;
        let counts = |_: &Value| {
            count += 1;
            Some(())
        };
        open(&file, counts).unwrap();
        assert_eq!(count, 100);
    }
}
