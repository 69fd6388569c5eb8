//! The one reading of a time, whichever header it stands in.

use std::{iter, str::FromStr, time::Duration};

use super::date;

/// When something happens, as a server says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// This long after the answer.
    In(Duration),
    /// This long after 1970, by the server's clock.
    At(Duration),
}

impl When {
    /// Reads a number, whole or with a fraction, or a date. `local` is the time since 1970 by the local clock.
    pub(super) fn parse(text: &str, local: impl FnOnce() -> Duration) -> Option<Self> {
        match seconds(text) {
            Some(number) => Some(Self::from_number(number)),
            None => date::parse(text, local()).map(Self::At),
        }
    }

    /// Servers send deltas, epoch seconds and epoch milliseconds under the same names; their size tells them apart.
    pub(super) fn from_number(number: Duration) -> Self {
        if number > LARGEST_EPOCH_SECONDS {
            Self::At(number / 1000)
        } else if number > LARGEST_DELTA {
            Self::At(number)
        } else {
            Self::In(number)
        }
    }
}

/// Reads digits with or without a fraction as seconds, to the nanosecond. No sign, no exponent.
pub(super) fn seconds(text: &str) -> Option<Duration> {
    // Nearly always there is no fraction.
    if let Some(seconds) = digits(text) {
        return Some(Duration::from_secs(seconds));
    }
    let (whole, fraction) = text.split_once('.')?;
    if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nine_digits = fraction.bytes().chain(iter::repeat(b'0')).take(9);
    let nanos = nine_digits.fold(0, |nanos: u32, digit| {
        nanos
            .saturating_mul(10)
            .saturating_add(u32::from(digit.saturating_sub(b'0')))
    });
    Some(Duration::new(digits(whole)?, nanos))
}

/// Reads a whole number. The standard library's parser takes a sign before it too.
pub(super) fn digits<T: FromStr>(text: &str) -> Option<T> {
    let number = text.bytes().next().is_some_and(|b| b.is_ascii_digit());
    number.then(|| text.parse().ok()).flatten()
}

/// 31 years as a delta, September 2001 as an epoch.
const LARGEST_DELTA: Duration = Duration::from_secs(1_000_000_000);
/// September 2001 in milliseconds, the year 33658 in seconds.
const LARGEST_EPOCH_SECONDS: Duration = Duration::from_secs(1_000_000_000_000);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_a_delta_or_an_epoch_by_its_size() {
        let ms = Duration::from_millis;
        let table = [
            ("0", When::In(Duration::ZERO)),
            ("12", When::In(ms(12_000))),
            ("0.25", When::In(ms(250))),
            ("12.000", When::In(ms(12_000))),
            ("1000000000", When::In(ms(1_000_000_000_000))),
            ("1000000001", When::At(ms(1_000_000_001_000))),
            ("1718459532", When::At(ms(1_718_459_532_000))),
            ("1718459532.125", When::At(ms(1_718_459_532_125))),
            ("1000000000000", When::At(ms(1_000_000_000_000_000))),
            ("1718459532125", When::At(ms(1_718_459_532_125))),
            (
                "1718459532125.5",
                When::At(Duration::from_micros(1_718_459_532_125_500)),
            ),
        ];
        for (text, when) in table {
            assert_eq!(When::parse(text, || Duration::ZERO), Some(when), "{text}");
        }
    }

    #[test]
    fn a_fraction_is_read_to_the_nanosecond() {
        assert_eq!(seconds("1.0000000019"), Some(Duration::new(1, 1)));
        assert_eq!(seconds("0.000000001"), Some(Duration::new(0, 1)));
        assert_eq!(seconds("0.5"), Some(Duration::from_millis(500)));
    }

    #[test]
    fn what_is_no_number_is_none() {
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "1.5.2",
            "+1",
            "-1",
            "1e3",
            "1,5",
            "0x10",
            "1 2",
            "inf",
            "nan",
            "NaN",
            "\u{b2}",
            "18446744073709551616",
            "99999999999999999999999999999999999",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
