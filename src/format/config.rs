//! `modelfs.json`: what a store is and how it was made.
//!
//! One line of canonical JSON with a check like a history record's. Written once, at `init`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::canonical::{self, CanonicalError};
use super::codec::BLOCK_BYTES;
use super::frame::ZSTD_LEVEL;
use super::pack::PACK_BYTES;
use super::record::check_of;

/// The format that this release writes and reads.
pub const FORMAT: u32 = 1;
/// Largest file that is read as a configuration.
pub const CONFIG_BYTES_MAX: usize = 64 << 10;

/// How files of unknown format are cut; frozen for the life of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chunking {
    /// Shortest piece, but for the last of a file.
    pub bytes_min: u32,
    pub bytes_average: u32,
    pub bytes_max: u32,
}

impl Default for Chunking {
    fn default() -> Self {
        Self { bytes_min: 64 << 10, bytes_average: 256 << 10, bytes_max: 1 << 20 }
    }
}

/// The content of `modelfs.json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub format: u32,
    /// 32 hexadecimal digits, random: tells one store from another.
    pub store: String,
    pub created: Timestamp,
    pub chunking: Chunking,
    pub block_bytes: u32,
    pub pack_bytes: u64,
    pub zstd_level: i32,
    /// Wrapped keys once stores can be encrypted; empty means plain.
    pub key_slots: Vec<Value>,
}

/// Why a text is not a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
    #[error("store format {found}, this release reads {FORMAT}: use the modelfs that made it")]
    Format { found: u64 },
    #[error("its check is `{found}`, its content asks for `{expected}`")]
    Check { expected: String, found: String },
    #[error("no newline at the end: it was cut off")]
    Unended,
    #[error("it asks for {what}, which this release does not know")]
    Unsupported { what: &'static str },
}

impl Config {
    /// A new store's configuration.
    pub fn new(store: String, created: Timestamp) -> Self {
        Self {
            format: FORMAT,
            store,
            created,
            chunking: Chunking::default(),
            block_bytes: u32::try_from(BLOCK_BYTES).expect("a constant"),
            pack_bytes: PACK_BYTES,
            zstd_level: ZSTD_LEVEL,
            key_slots: Vec::new(),
        }
    }

    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut value = serde_json::to_value(self).expect("a configuration has text keys only");
        value["check"] = Value::String(check_of(&value));
        let mut line = canonical::encode(&value).into_bytes();
        line.push(b'\n');
        line
    }

    /// Parses the file's bytes and checks them.
    ///
    /// # Errors
    /// Whatever differs from what `encode` writes; a format or a parameter of another release.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        let line = bytes.strip_suffix(b"\n").ok_or(ConfigError::Unended)?;
        let mut value: Value = canonical::parse(line)?;
        let found = match value.as_object_mut().and_then(|object| object.remove("check")) {
            Some(Value::String(check)) => check,
            _ => String::new(),
        };
        let expected = check_of(&value);
        if found != expected {
            return Err(ConfigError::Check { expected, found });
        }
        match value["format"].as_u64() {
            Some(format) if format == u64::from(FORMAT) => {}
            other => return Err(ConfigError::Format { found: other.unwrap_or(0) }),
        }
        let config: Self = serde_json::from_value(value).map_err(CanonicalError::from)?;
        if config.block_bytes as usize != BLOCK_BYTES {
            return Err(ConfigError::Unsupported { what: "another block size" });
        }
        if !config.key_slots.is_empty() {
            return Err(ConfigError::Unsupported { what: "encryption" });
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_a_configuration_is_found() {
        let config = Config::new("00".repeat(16), "2026-01-02T03:04:05Z".parse().unwrap());
        let bytes = config.encode();
        assert_eq!(Config::parse(&bytes).unwrap(), config);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Config::parse(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_format_is_refused_by_name() {
        let mut config = Config::new("00".repeat(16), Timestamp::UNIX_EPOCH);
        config.format = 2;
        let error = Config::parse(&config.encode()).unwrap_err();
        assert!(matches!(error, ConfigError::Format { found: 2 }), "{error:?}");
    }
}
