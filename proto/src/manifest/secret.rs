//! How manifests name secrets. A secret's value never stands in a file that is deployed.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// The longest name of a secret or an environment variable, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// The text is not the name of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret's name has 1 to {NAME_BYTES_MAX} letters, digits and `_`, and does not start with a digit")]
pub struct InvalidSecretName;

/// Names a secret of the workspace, or a variable of the node's environment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct SecretName(String);

impl SecretName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SecretName {
    type Err = InvalidSecretName;
    fn from_str(text: &str) -> Result<SecretName, InvalidSecretName> {
        let letters = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let starts = text.chars().next().is_some_and(|c| !c.is_ascii_digit());
        let fine = letters && starts && text.len() <= NAME_BYTES_MAX;
        if fine { Ok(SecretName(text.to_owned())) } else { Err(InvalidSecretName) }
    }
}

/// Where a provider's key comes from: `"secret:NAME"` or `"env:NAME"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A secret that `caxton secrets set` keeps.
    Secret(SecretName),
    /// A variable of the node's environment.
    Env(SecretName),
}

/// The text names no place where a key could be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeySource {
    /// Neither `secret:` nor `env:`; it may be the key itself.
    #[error("name where the key is, \"secret:NAME\" or \"env:NAME\"")]
    NoSource,
    /// The name is not one.
    #[error(transparent)]
    Name(#[from] InvalidSecretName),
}

impl FromStr for KeySource {
    type Err = InvalidKeySource;
    fn from_str(text: &str) -> Result<KeySource, InvalidKeySource> {
        match text.split_once(':') {
            Some(("secret", name)) => Ok(KeySource::Secret(name.parse()?)),
            Some(("env", name)) => Ok(KeySource::Env(name.parse()?)),
            _ => Err(InvalidKeySource::NoSource),
        }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeySource::Secret(name) => write!(f, "secret:{name}"),
            KeySource::Env(name) => write!(f, "env:{name}"),
        }
    }
}

impl Serialize for KeySource {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// What a tool is given: text as it stands, or the value of `"secret:NAME"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GivenValue {
    /// The text as it stands in the file.
    Text(String),
    /// The secret's value, when the tool starts.
    Secret(SecretName),
}

impl GivenValue {
    /// The secret that is named, if one is.
    pub fn secret(&self) -> Option<&SecretName> {
        match self {
            GivenValue::Text(_) => None,
            GivenValue::Secret(name) => Some(name),
        }
    }
}

impl FromStr for GivenValue {
    type Err = InvalidSecretName;
    fn from_str(text: &str) -> Result<GivenValue, InvalidSecretName> {
        match text.strip_prefix("secret:") {
            Some(name) => Ok(GivenValue::Secret(name.parse()?)),
            None => Ok(GivenValue::Text(text.to_owned())),
        }
    }
}

impl Serialize for GivenValue {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            GivenValue::Text(text) => to.serialize_str(text),
            GivenValue::Secret(name) => to.collect_str(&format_args!("secret:{name}")),
        }
    }
}
