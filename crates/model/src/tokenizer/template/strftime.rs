//! The clock of a template: `datetime.now().strftime(format)` in the C locale.

use jiff::ZonedDateTime;
use jiff::civil::DateTime;
use jiff::fmt::strtime::{BrokenDownTime, Config, PosixCustom};
use minijinja::{Error, ErrorKind};

/// What glibc knows; it leaves other directives as they stand.
const DIRECTIVES: &str = "aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyY%";

/// A moment of local time.
pub(super) struct Clock(DateTime);

impl Clock {
    /// The moment `at`, in ISO 8601 without an offset, or else now.
    pub(super) fn new(at: Option<&str>) -> Result<Self, String> {
        match at {
            None => Ok(Clock(ZonedDateTime::now().datetime())),
            Some(at) => at.parse().map(Clock).map_err(|error| format!("`{at}` is no date and time: {error}")),
        }
    }

    /// The moment in words.
    pub(super) fn format(&self, format: &str) -> Result<String, Error> {
        let config = Config::new().custom(PosixCustom::new());
        let time = BrokenDownTime::from(self.0);
        let text = time.to_string_with_config(&config, self.as_jiff_reads_it(format));
        text.map_err(|error| {
            Error::new(ErrorKind::InvalidOperation, format!("strftime_now('{format}'): {error}"))
        })
    }

    /// The format without what jiff reads otherwise than Python and glibc.
    fn as_jiff_reads_it(&self, format: &str) -> String {
        let mut out = String::new();
        let mut rest = format;
        while let Some((plain, after)) = rest.split_once('%') {
            out.push_str(plain);
            let spec = after
                .trim_start_matches(['-', '_', '0', '^', '#'])
                .trim_start_matches(|c: char| c.is_ascii_digit());
            let flags = &after[..after.len() - spec.len()];
            let mut letters = spec.strip_prefix(['E', 'O']).unwrap_or(spec).chars();
            let letter = letters.next();
            rest = letters.as_str();
            match letter {
                // A time without a zone has neither name nor offset.
                Some('z' | 'Z') => {}
                Some('f') => out.push_str(&format!("{:06}", self.0.subsec_nanosecond() / 1000)),
                Some(known) if DIRECTIVES.contains(known) => {
                    out.extend(["%", flags, known.encode_utf8(&mut [0; 4])])
                }
                _ => out.push_str(&format!("%%{}", &after[..after.len() - rest.len()])),
            }
        }
        out + rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_runs_unless_it_is_set() {
        let year = |at| Clock::new(at).unwrap().format("%Y").unwrap();
        assert_eq!(year(Some("2025-03-07T09:05:03")), "2025");
        assert!(year(None).as_str() >= "2025");
        assert!(Clock::new(Some("yesterday")).is_err());
    }
}
