//! Keys from the environment and from files.

use std::{
    env::{self, VarError},
    error::Error,
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{ApiKey, Fault, InvalidApiKey, MAX_LEN};

impl ApiKey {
    /// Reads the key in the environment variable `name`, such as `PLOTON_API_KEY`.
    ///
    /// # Errors
    ///
    /// Where it is not set, or is no [key](Self::parse). The error names the variable, and never holds its value.
    pub fn from_env(name: &str) -> Result<Self, ReadKeyError> {
        let place = || Place::Variable(redacted(name).unwrap_or_else(|| name.to_owned()));
        match env::var(name) {
            Ok(key) => Self::parse(&key).map_err(|invalid| ReadKeyError::invalid(place(), invalid)),
            Err(VarError::NotUnicode(_)) => Err(ReadKeyError::invalid(
                place(),
                InvalidApiKey(Fault::Character),
            )),
            Err(VarError::NotPresent) => Err(ReadKeyError {
                place: place(),
                cause: Cause::NotSet,
            }),
        }
    }

    /// Reads the key that is all the file holds, such as a mounted secret. One line end behind it is left out.
    ///
    /// It blocks the thread for as long as the file takes. [`KeyFile`](crate::auth::KeyFile) reads a file again and again.
    ///
    /// # Errors
    ///
    /// Where the file can't be read, or holds anything but a [key](Self::parse). The error names the file, and never holds
    /// what is in it.
    ///
    /// # Example
    ///
    /// ```
    /// use tower_ploton::ApiKey;
    ///
    /// # let path = std::env::temp_dir().join(format!("ploton-key-{}", std::process::id()));
    /// std::fs::write(&path, "pk_test_4f9d0c2b7a6e1583\n")?;
    /// assert_eq!(ApiKey::from_file(&path)?, ApiKey::parse("pk_test_4f9d0c2b7a6e1583")?);
    /// # std::fs::remove_file(path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ReadKeyError> {
        let path = path.as_ref();
        let place = || Place::File(shown(path));
        let text = read(path).map_err(|error| ReadKeyError {
            place: place(),
            cause: Cause::Io(error),
        })?;
        parse_line(&text).map_err(|invalid| ReadKeyError::invalid(place(), invalid))
    }
}

/// A path as it is shown, be it a key that somebody gave in its place.
pub(crate) fn shown(path: &Path) -> PathBuf {
    let key = path.to_str().and_then(redacted);
    key.map_or_else(|| path.to_owned(), PathBuf::from)
}

/// What is shown of a key that somebody gave in the place of its place.
fn redacted(place: &str) -> Option<String> {
    let key = ApiKey::parse(place.trim()).ok()?;
    Some(key.to_string())
}

/// What the file begins with: a file that never ends must not be read for ever.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    // fits: a key, a line end, and one byte more that makes it too long
    File::open(path)?
        .take(MAX_LEN as u64 + 3)
        .read_to_end(&mut text)?;
    Ok(text)
}

fn parse_line(text: &[u8]) -> Result<ApiKey, InvalidApiKey> {
    let line = text.strip_suffix(b"\n").unwrap_or(text);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let key = std::str::from_utf8(line).map_err(|_| InvalidApiKey(Fault::Character))?;
    ApiKey::parse(key)
}

/// There is no API key where it was looked for. It says where and why, and never what was there.
#[derive(Debug)]
pub struct ReadKeyError {
    place: Place,
    cause: Cause,
}

#[derive(Debug)]
enum Place {
    Variable(String),
    File(PathBuf),
}

#[derive(Debug)]
enum Cause {
    NotSet,
    Io(io::Error),
    Invalid(InvalidApiKey),
}

impl ReadKeyError {
    fn invalid(place: Place, invalid: InvalidApiKey) -> Self {
        Self {
            place,
            cause: Cause::Invalid(invalid),
        }
    }
}

/// "no API key in the environment variable PLOTON_API_KEY: it is not set"
impl fmt::Display for ReadKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Variable(name) => write!(f, "no API key in the environment variable {name}")?,
            Place::File(path) => write!(f, "no API key in the file {}", path.display())?,
        }
        match &self.cause {
            Cause::NotSet => f.write_str(": it is not set"),
            Cause::Io(_) | Cause::Invalid(_) => Ok(()),
        }
    }
}

impl Error for ReadKeyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.cause {
            Cause::NotSet => None,
            Cause::Io(error) => Some(error),
            Cause::Invalid(invalid) => Some(invalid),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const KEY: &str = "pk_test_hunter2hunter2hunter2";

    /// A file of its own for a test.
    struct Temporary(PathBuf);

    impl Temporary {
        fn holding(name: &str, text: impl AsRef<[u8]>) -> Self {
            let name = format!("tower-ploton-{name}-{}", std::process::id());
            let path = env::temp_dir().join(name);
            fs::write(&path, text).unwrap();
            Self(path)
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    fn told(error: &ReadKeyError) -> String {
        format!(
            "{error} {error:?} {:?}",
            error.source().map(ToString::to_string)
        )
    }

    #[test]
    fn one_line_end_is_left_out() {
        let key = ApiKey::parse(KEY).unwrap();
        for text in [KEY.to_owned(), format!("{KEY}\n"), format!("{KEY}\r\n")] {
            assert_eq!(parse_line(text.as_bytes()), Ok(key.clone()), "{text:?}");
        }
        for text in [
            format!("{KEY}\n\n"),
            format!("{KEY} \n"),
            format!("\n{KEY}"),
            format!("{KEY}\n{KEY}"),
            String::new(),
        ] {
            assert!(parse_line(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_file_holds_a_key_or_the_error_says_which_file_does_not() {
        let longest = format!("pk_live_{}", "x".repeat(MAX_LEN - 8));
        let file = Temporary::holding("longest", format!("{longest}\r\n"));
        let key = ApiKey::from_file(&file.0).unwrap();
        assert_eq!(key, ApiKey::parse(&longest).unwrap());

        let texts: [&[u8]; 4] = [
            b"hunter2hunter2",
            b"pk_test_hunter2hunter2\xff",
            b"pk_test_hunter2 hunter2",
            &b"pk_test_hunter2hunter2".repeat(1_000),
        ];
        for text in texts {
            let file = Temporary::holding("bad", text);
            let error = ApiKey::from_file(&file.0).unwrap_err();
            assert!(error.source().unwrap().is::<InvalidApiKey>());
            assert!(told(&error).contains("tower-ploton-bad"));
            assert!(!told(&error).contains("hunter2"), "{}", told(&error));
        }

        let error = ApiKey::from_file("/nowhere/at/all").unwrap_err();
        assert!(error.source().unwrap().is::<io::Error>());
        assert!(error.to_string().contains("/nowhere/at/all"));
    }

    /// `from_env(&env::var("PLOTON_API_KEY")?)`: the error named the key.
    #[test]
    fn a_key_in_the_place_of_its_place_is_not_named() {
        for text in [KEY.to_owned(), format!("{KEY}\n")] {
            for error in [
                ApiKey::from_env(&text).unwrap_err(),
                ApiKey::from_file(&text).unwrap_err(),
            ] {
                let told = told(&error);
                assert!(told.contains("pk_test_…ter2"), "{told}");
                assert!(!told.contains("hunter2"), "{told}");
            }
        }
    }

    #[test]
    fn a_variable_that_is_missing_or_no_key_is_named() {
        let error = ApiKey::from_env("PLOTON_NO_SUCH_VARIABLE").unwrap_err();
        assert_eq!(
            error.to_string(),
            "no API key in the environment variable PLOTON_NO_SUCH_VARIABLE: it is not set"
        );
        // Always set while cargo runs a test, and no key.
        let error = ApiKey::from_env("CARGO_MANIFEST_DIR").unwrap_err();
        assert!(error.source().unwrap().is::<InvalidApiKey>());
        let value = env::var("CARGO_MANIFEST_DIR").unwrap();
        assert!(!told(&error).contains(&value));
    }
}
