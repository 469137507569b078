//! The types that a setting can have: how each is read from what a person wrote, and shown again.
//!
//! A quantity always carries its unit in text (`30s`, `8MiB`): a bare number where a unit is needed is a problem and
//! not a guess.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use caxton_tools::network::{BadNetwork, Network};

/// What a person wrote for one setting, before it means anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Raw {
    /// A string, a number or a boolean, as text.
    Text(String),
    /// A TOML array of those.
    List(Vec<String>),
}

impl Raw {
    fn text(&self) -> Result<&str, String> {
        match self {
            Raw::Text(text) => Ok(text.trim()),
            Raw::List(_) => Err("is a list, and one value is wanted".to_owned()),
        }
    }
}

/// A type that a setting can have.
pub trait Value: Sized + PartialOrd {
    /// What the type is called in docs/config.md.
    const KIND: &'static str;
    /// Reads it; the error completes "`http.bind` ...".
    fn read(raw: &Raw) -> Result<Self, String>;
    /// The text that reads back as the same value.
    fn show(&self) -> String;
}

impl Value for u64 {
    const KIND: &'static str = "number";
    fn read(raw: &Raw) -> Result<Self, String> {
        let text = raw.text()?;
        text.replace('_', "").parse().map_err(|_| format!("is {text:?}, and a whole number is wanted"))
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for bool {
    const KIND: &'static str = "true or false";
    fn read(raw: &Raw) -> Result<Self, String> {
        let text = raw.text()?;
        text.parse().map_err(|_| format!("is {text:?}, and `true` or `false` is wanted"))
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    const KIND: &'static str = "text";
    fn read(raw: &Raw) -> Result<Self, String> {
        raw.text().map(str::to_owned)
    }
    fn show(&self) -> String {
        self.clone()
    }
}

impl Value for PathBuf {
    const KIND: &'static str = "path";
    fn read(raw: &Raw) -> Result<Self, String> {
        raw.text().map(PathBuf::from)
    }
    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl Value for Vec<String> {
    const KIND: &'static str = "list";
    fn read(raw: &Raw) -> Result<Self, String> {
        Ok(match raw {
            Raw::List(items) => items.clone(),
            Raw::Text(text) => {
                text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
            }
        })
    }
    fn show(&self) -> String {
        self.join(",")
    }
}

/// Networks, each as `ADDRESS/LENGTH`.
#[derive(Debug, Clone, Default, PartialEq, PartialOrd)]
pub struct Networks(pub Vec<Network>);

impl Value for Networks {
    const KIND: &'static str = "list of networks";
    fn read(raw: &Raw) -> Result<Self, String> {
        let networks = Vec::<String>::read(raw)?.into_iter().map(|text| {
            text.parse().map_err(|error: BadNetwork| {
                format!("has an entry that is none: {error}, as in `10.1.0.0/16` or `fd00::/8`")
            })
        });
        networks.collect::<Result<_, _>>().map(Networks)
    }
    fn show(&self) -> String {
        self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

impl Value for SocketAddr {
    const KIND: &'static str = "address";
    fn read(raw: &Raw) -> Result<Self, String> {
        let text = raw.text()?;
        let named = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        let every = text.strip_prefix(':').map(|port| format!("0.0.0.0:{port}"));
        let address = named.or(every).unwrap_or_else(|| text.to_owned());
        address.parse().map_err(|_| {
            format!("is {text:?}, and an IP address with a port is wanted, as in `127.0.0.1:7411` or `[::]:7411`")
        })
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Option<SocketAddr> {
    const KIND: &'static str = "address, or empty";
    fn read(raw: &Raw) -> Result<Self, String> {
        if raw.text()?.is_empty() { Ok(None) } else { SocketAddr::read(raw).map(Some) }
    }
    fn show(&self) -> String {
        self.map(|address| address.to_string()).unwrap_or_default()
    }
}

/// The units of time, the longest first, in milliseconds.
const TIMES: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Value for Duration {
    const KIND: &'static str = "duration";
    fn read(raw: &Raw) -> Result<Self, String> {
        let text = raw.text()?;
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let wrong = || format!("is {text:?}, and a duration is wanted: a whole number with `ms`, `s`, `m`, `h` or `d`");
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let (_, ms) = TIMES.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(wrong)?;
        number.checked_mul(*ms).map(Duration::from_millis).ok_or_else(wrong)
    }
    fn show(&self) -> String {
        let ms = self.as_millis() as u64;
        let whole = TIMES.iter().find(|(_, unit)| ms != 0 && ms.is_multiple_of(*unit));
        whole.map_or_else(|| "0s".to_owned(), |(name, unit)| format!("{}{name}", ms / unit))
    }
}

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// For lengths of what is in memory.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// The units of size, the largest first.
const SIZES: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = SIZES.iter().find(|(_, unit)| self.0 != 0 && self.0.is_multiple_of(*unit));
        match whole {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => f.write_str("0B"),
        }
    }
}

impl Value for ByteSize {
    const KIND: &'static str = "size";
    fn read(raw: &Raw) -> Result<Self, String> {
        let text = raw.text()?;
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let wrong = || format!("is {text:?}, and a size is wanted: a whole number with `B`, `KiB`, `MiB` or `GiB`");
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let (_, bytes) = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim())).ok_or_else(wrong)?;
        number.checked_mul(*bytes).map(ByteSize).ok_or_else(wrong)
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

/// A type that is one word out of a few.
macro_rules! choice {
    ($(#[$doc:meta])* $Type:ident { $($(#[$vdoc:meta])* $Variant:ident = $word:literal),+ $(,)? } as $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
        pub enum $Type { $($(#[$vdoc])* $Variant),+ }

        impl Value for $Type {
            const KIND: &'static str = $kind;
            fn read(raw: &Raw) -> Result<Self, String> {
                match raw.text()? {
                    $($word => Ok($Type::$Variant),)+
                    other => Err(format!("is {other:?}, and one of {} is wanted", $kind)),
                }
            }
            fn show(&self) -> String {
                match self { $($Type::$Variant => $word),+ }.to_owned()
            }
        }
    };
}

choice!(
    /// How log lines are written.
    LogFormat {
        /// For people on a terminal, JSON elsewhere.
        Auto = "auto",
        Pretty = "pretty",
        /// For programs, one object a line.
        Json = "json",
    } as "`auto`, `pretty`, `json`"
);

choice!(
    /// When the API speaks TLS.
    TlsMode {
        /// As soon as the address is not loopback.
        Auto = "auto",
        /// On loopback too.
        Always = "always",
    } as "`auto`, `always`"
);

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Value>(text: &str) -> Result<T, String> {
        T::read(&Raw::Text(text.to_owned()))
    }

    #[test]
    fn quantities_need_their_unit_and_read_back_as_shown() {
        for text in ["0s", "250ms", "30s", "90s", "5m", "2h", "30d"] {
            assert_eq!(read::<Duration>(text).map(|it| it.show()).as_deref(), Ok(text));
        }
        for text in ["0B", "1023B", "8MiB", "3GiB", "1TiB"] {
            assert_eq!(read::<ByteSize>(text).map(|it| it.show()).as_deref(), Ok(text));
        }
        for bad in ["30", "s", "-1s", "1.5s", "30 parsecs", "99999999999999999999d", "18446744073709551615d"] {
            assert!(read::<Duration>(bad).is_err(), "{bad}");
        }
        for bad in ["8", "8MB", "MiB", "-1KiB", "18446744073709551615TiB"] {
            assert!(read::<ByteSize>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn networks_read_back_as_shown_and_a_bad_one_is_named() {
        let networks = read::<Networks>("10.1.0.0/16, 127.0.0.1, fd00::/8").map(|it| it.show());
        assert_eq!(networks.as_deref(), Ok("10.1.0.0/16,127.0.0.1/32,fd00::/8"));
        assert!(read::<Networks>("").is_ok_and(|networks| networks.0.is_empty()));
        assert!(read::<Networks>("10.0.0.0/8,example.org").is_err_and(|error| error.contains("`example.org`")));
    }

    #[test]
    fn an_address_may_be_written_short() {
        assert_eq!(read::<SocketAddr>("localhost:80").map(|it| it.to_string()).as_deref(), Ok("127.0.0.1:80"));
        assert_eq!(read::<SocketAddr>(":80").map(|it| it.to_string()).as_deref(), Ok("0.0.0.0:80"));
        assert!(read::<SocketAddr>("example.org:80").is_err());
        assert!(read::<SocketAddr>("127.0.0.1").is_err());
    }
}
