//! Signatures of history records and checkpoints: Ed25519, and the keys that people keep in files.
//!
//! Invariant H4: a signature covers everything in a record but itself and `check`; `prev` among it, and so
//! all records before.

use std::fmt;

use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ids::hexadecimal;

/// Longest file of a key, in bytes.
pub const KEY_BYTES_MAX: usize = 16 << 10;

const PUBLIC_BYTES: usize = 32;
const VALUE_BYTES: usize = 64;
/// Bytes of a signature with its key.
pub const SIGNATURE_BYTES: usize = PUBLIC_BYTES + VALUE_BYTES;

/// What is signed: a signature of a record is one of nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    Record,
    Checkpoint,
}

impl Purpose {
    /// What comes before the bytes that are signed.
    fn context(self) -> &'static [u8] {
        match self {
            Self::Record => b"modelfs record v1\n",
            Self::Checkpoint => b"modelfs checkpoint v1\n",
        }
    }
}

/// Why the text of a file is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("it is encrypted: a key that is used without anybody at hand has no passphrase")]
    Encrypted,
    #[error("it is a private key, expected the public one")]
    Private,
    #[error("it is a key of another kind, expected Ed25519")]
    Kind,
    #[error("it is no key in PEM or of OpenSSH: {0}")]
    Text(String),
}

/// The public half of a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; PUBLIC_BYTES]);

/// A signature, and the key that checks it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Signature {
    pub key: PublicKey,
    value: SignatureValue,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct SignatureValue([u8; VALUE_BYTES]);

/// Signs records, and checkpoints of them.
pub struct Signer(SigningKey);

impl Signer {
    /// Parses a private key without a passphrase: PKCS#8 in PEM, as `openssl genpkey -algorithm ed25519`
    /// makes it, or one of OpenSSH, as `ssh-keygen -t ed25519 -N ''` does.
    ///
    /// # Errors
    /// What it is instead.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        if text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
            return Err(KeyError::Encrypted);
        }
        if text.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----") {
            let key = ssh_key::PrivateKey::from_openssh(text).map_err(of_ssh)?;
            if key.is_encrypted() {
                return Err(KeyError::Encrypted);
            }
            let pair = key.key_data().ed25519().ok_or(KeyError::Kind)?;
            return Ok(Self(SigningKey::from_bytes(&pair.private.to_bytes())));
        }
        let key = SigningKey::from_pkcs8_pem(text).map_err(|error| of_pkcs8(&error))?;
        Ok(Self(key))
    }

    /// The key that checks what this one signs.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs the text of a record, or what a checkpoint says of itself.
    pub fn sign(&self, purpose: Purpose, bytes: &[u8]) -> Signature {
        let value = SignatureValue(self.0.sign(&message(purpose, bytes)).to_bytes());
        Signature { key: self.public(), value }
    }
}

impl fmt::Debug for Signer {
    /// Never the key itself.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.public())
    }
}

impl Signature {
    /// Whether it is the signature of these bytes with its key.
    pub fn is_of(&self, purpose: Purpose, bytes: &[u8]) -> bool {
        let value = ed25519_dalek::Signature::from_bytes(&self.value.0);
        let key = VerifyingKey::from_bytes(&self.key.0);
        key.is_ok_and(|key| key.verify_strict(&message(purpose, bytes), &value).is_ok())
    }

    /// The key and the value.
    pub fn to_bytes(self) -> [u8; SIGNATURE_BYTES] {
        let mut bytes = [0; SIGNATURE_BYTES];
        bytes[..PUBLIC_BYTES].copy_from_slice(&self.key.0);
        bytes[PUBLIC_BYTES..].copy_from_slice(&self.value.0);
        bytes
    }

    /// A signature of some bytes, right or wrong.
    pub fn from_bytes(bytes: &[u8; SIGNATURE_BYTES]) -> Self {
        let (mut key, mut value) = ([0; PUBLIC_BYTES], [0; VALUE_BYTES]);
        key.copy_from_slice(&bytes[..PUBLIC_BYTES]);
        value.copy_from_slice(&bytes[PUBLIC_BYTES..]);
        Self { key: PublicKey(key), value: SignatureValue(value) }
    }
}

fn message(purpose: Purpose, bytes: &[u8]) -> Vec<u8> {
    [purpose.context(), bytes].concat()
}

impl PublicKey {
    /// Parses a public key: PEM, as `openssl pkey -pubout` prints it, or a line of OpenSSH.
    ///
    /// # Errors
    /// What it is instead.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        if text.contains("PRIVATE KEY-----") {
            return Err(KeyError::Private);
        }
        if text.starts_with("ssh-") || text.starts_with("ecdsa-") || text.starts_with("sk-") {
            let key = ssh_key::PublicKey::from_openssh(text).map_err(of_ssh)?;
            return Ok(Self(key.key_data().ed25519().ok_or(KeyError::Kind)?.0));
        }
        let key = VerifyingKey::from_public_key_pem(text).map_err(|error| match error {
            ed25519_dalek::pkcs8::spki::Error::OidUnknown { .. } => KeyError::Kind,
            other => KeyError::Text(other.to_string()),
        })?;
        Ok(Self(key.to_bytes()))
    }
}

fn of_ssh(error: ssh_key::Error) -> KeyError {
    match error {
        ssh_key::Error::AlgorithmUnknown | ssh_key::Error::AlgorithmUnsupported { .. } => {
            KeyError::Kind
        }
        other => KeyError::Text(other.to_string()),
    }
}

fn of_pkcs8(error: &ed25519_dalek::pkcs8::Error) -> KeyError {
    use ed25519_dalek::pkcs8::{Error, spki};
    match error {
        Error::PublicKey(spki::Error::OidUnknown { .. }) => KeyError::Kind,
        other => KeyError::Text(other.to_string()),
    }
}

/// Digits in every form, for a newtype over an array of bytes.
macro_rules! as_digits {
    ($name:ident) => {
        hexadecimal!($name);

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

as_digits!(PublicKey);
as_digits!(SignatureValue);

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A key that everybody knows.
    pub fn signer() -> Signer {
        Signer::parse(OPENSSL).unwrap()
    }

    /// Made by `openssl genpkey -algorithm ed25519`, for these tests only.
    const OPENSSL: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIPpvDEP3+IpaeaDfhPITxQdfr9gS/2AtBuGkl3jSoQ1v\n\
        -----END PRIVATE KEY-----\n";
    const OPENSSL_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAj9bWvUhnsyKIg5FiQ4aj5D+cadrfqkIGguCDrFBcplc=\n\
        -----END PUBLIC KEY-----\n";
    /// Made by `ssh-keygen -t ed25519 -N ''`, for these tests only.
    const OPENSSH: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\n\
        b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW\n\
        QyNTUxOQAAACCIDMvLi7ZBAlZTIbu6pfzRmValkYxpbbhATbAr7tYt3wAAAJCA0iz6gNIs\n\
        +gAAAAtzc2gtZWQyNTUxOQAAACCIDMvLi7ZBAlZTIbu6pfzRmValkYxpbbhATbAr7tYt3w\n\
        AAAEBMTUM4PeDEY3Kv0lk0RsJUGtCxiry8kql5h6AdSIJwaIgMy8uLtkECVlMhu7ql/NGZ\n\
        VqWRjGltuEBNsCvu1i3fAAAAB2F1ZGl0b3IBAgMEBQY=\n\
        -----END OPENSSH PRIVATE KEY-----\n";
    const OPENSSH_PUBLIC: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIgMy8uLtkECVlMhu7ql/NGZVqWRjGltuEBNsCvu1i3f auditor\n";
    const ENCRYPTED_KEYS: [&str; 2] = [
        "-----BEGIN OPENSSH PRIVATE KEY-----\n\
        b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAABAvYzxPFH\n\
        hEGoxA2xzBoQr6AAAAEAAAAAEAAAAzAAAAC3NzaC1lZDI1NTE5AAAAIHPFlxn0V90r7s9A\n\
        aBo0x3HK/CLJ7oPSMFSYKmsidC4TAAAAkBOcm0+iGoIZoBkV4HTtnT/q4/9sYPZoKR2h1/\n\
        gOfshPjJ/CqWYzn5UPNxUeETsU/RPyfGtSUaSoOoEVqQGSqhN6wTVyJt6ws5kTo6pF9cT6\n\
        VSNGdNHVHjV/rwOQ8/5aphbBXlJpUzdFkpJMbu7QRbe1sadAseFQSaM74lNwCtpRi4Y4gw\n\
        9W2aSxF+57zzxj1g==\n\
        -----END OPENSSH PRIVATE KEY-----",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\n\
        MIGbMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAgl5//3NrWpzAICCAAw\n\
        DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEBpXc+ORoJlxIXFXLnY4ihAEQLkh\n\
        GlMg8wbqTJFtV3Hak6RSAlOHAHLL76PzmD256DRqxpMY+H0PshRSU1qkRAj+cPsW\n\
        hPN++b0vqlQFUh59X7A=\n\
        -----END ENCRYPTED PRIVATE KEY-----",
    ];
    const OTHER_KEYS: [&str; 2] = [
        "-----BEGIN PRIVATE KEY-----\n\
        MEcCAQAwBQYDK2VxBDsEOYNp6Z8Wv1w5XbD13TFU1DLF1k/wwsW4lRUbIu1edj0d\n\
        fKfNZt04997g758o5zxTj1xowUfZSrQsfA==\n\
        -----END PRIVATE KEY-----",
        "-----BEGIN OPENSSH PRIVATE KEY-----\n\
        b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAaAAAABNlY2RzYS\n\
        1zaGEyLW5pc3RwMjU2AAAACG5pc3RwMjU2AAAAQQQTm6GSnZeyLx+tcJzG4var5F6RDKll\n\
        MRK8Wm1eW7Mvt+4AavnfmqcXqEzB5ObWp14nx0pwKM6oHDikdhid3jH/AAAAoGqil2dqop\n\
        dnAAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBBOboZKdl7IvH61w\n\
        nMbi9qvkXpEMqWUxErxabV5bsy+37gBq+d+apxeoTMHk5tanXifHSnAozqgcOKR2GJ3eMf\n\
        8AAAAhAPnpKuCK7spN206X7PtRwm0pdhaePh/l0GZqzxPKff+bAAAAAAECAwQFBgc=\n\
        -----END OPENSSH PRIVATE KEY-----",
    ];
    const OTHER_PUBLIC_KEYS: [&str; 2] = [
        "-----BEGIN PUBLIC KEY-----\n\
        MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAsK5vCZaS2A3o6pOEFJA/\n\
        4iHu2jsww4LztC8i2BvIfKn9YLz8rgo6Oi1q2O9UPe2xRjcgYY4R76fyWLLMlRrV\n\
        Dote4HvDSk8XADVG6cX0TW0S0Y82erA/P1M2UzekbWTFKl/mYcU0acpEQ0Yz4yWw\n\
        callBi7Kh3FFhzuOL/6OMAddJiuZJQcI+/MigZUgjjtTSyd7rwgV+8Kjw8C/AHQp\n\
        xJP22cCmr1FkR9DEJRCRvK/erXkhhyWJbyH4y8DCvCeqF8wgBdElVtBLEY2bltz/\n\
        c7kb2+LZNez+Bohszu7dXCK9bFbdFnuixQBM/EECJ4XCe8dlaKdUlSjMVK7aF0QM\n\
        KQIDAQAB\n\
        -----END PUBLIC KEY-----",
        "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBBOboZKdl7IvH61wnMbi9qvkXpEMqWUxErxabV5bsy+37gBq+d+apxeoTMHk5tanXifHSnAozqgcOKR2GJ3eMf8=",
    ];

    #[test]
    fn keys_of_openssl_and_openssh_sign_and_check() {
        for (private, public) in [(OPENSSL, OPENSSL_PUBLIC), (OPENSSH, OPENSSH_PUBLIC)] {
            let (signer, public) =
                (Signer::parse(private).unwrap(), PublicKey::parse(public).unwrap());
            assert_eq!(signer.public(), public);
            let signature = signer.sign(Purpose::Record, b"abc");
            assert!(signature.is_of(Purpose::Record, b"abc"));
            assert!(!signature.is_of(Purpose::Record, b"abd"));
            assert!(!signature.is_of(Purpose::Checkpoint, b"abc"));
            assert_eq!(Signature::from_bytes(&signature.to_bytes()), signature);
            let text = serde_json::to_string(&signature).unwrap();
            assert_eq!(serde_json::from_str::<Signature>(&text).unwrap(), signature);
            assert!(!format!("{signer:?}").contains("SigningKey"));
        }
    }

    #[test]
    fn openssl_makes_the_same_signature() {
        // printf 'modelfs record v1\nabc' >m; openssl pkeyutl -sign -inkey KEY -rawin -in m
        let expected = "f1c955910898fdff43dd928aa7cdb18bf816a28e840b8dd6d40080df94b05f1a\
                        88c8c60fb720be09b4313d86ff196664380821e5564acc0dbd0596b3157bf20f";
        let signature = Signer::parse(OPENSSL).unwrap().sign(Purpose::Record, b"abc");
        assert_eq!(signature.value.to_string(), expected);
    }

    #[test]
    fn a_signature_of_another_key_is_none() {
        let good = Signer::parse(OPENSSL).unwrap().sign(Purpose::Record, b"abc");
        let is_good = |signature: Signature| signature.is_of(Purpose::Record, b"abc");
        assert!(is_good(good));
        let mut signature = good;
        signature.key = Signer::parse(OPENSSH).unwrap().public();
        assert!(!is_good(signature));
        let mut flipped = good;
        flipped.value.0[3] ^= 1;
        assert!(!is_good(flipped));
        flipped.key.0 = [0xff; 32];
        assert!(!is_good(flipped), "no point of the curve");
    }

    #[test]
    fn what_is_no_key_says_what_it_is() {
        let signer = |text: &str| Signer::parse(text).unwrap_err().to_string();
        let public = |text: &str| PublicKey::parse(text).unwrap_err().to_string();
        let check = |found: String, expected: &str| assert!(found.contains(expected), "{found}");
        check(signer(ENCRYPTED_KEYS[0]), "encrypted");
        check(signer(ENCRYPTED_KEYS[1]), "encrypted");
        check(signer(OTHER_KEYS[0]), "another kind");
        check(signer(OTHER_KEYS[1]), "another kind");
        check(public(OTHER_PUBLIC_KEYS[0]), "another kind");
        check(public(OTHER_PUBLIC_KEYS[1]), "another kind");
        check(public(OPENSSL), "private key");
        check(public(OPENSSH), "private key");
        for text in ["", "hello", OPENSSL_PUBLIC, OPENSSH_PUBLIC, &OPENSSH[..200], &OPENSSL[..60]] {
            check(signer(text), "it is no key");
        }
        for text in ["", "hello", "ssh-ed25519", "ssh-ed25519 AAAA x", &OPENSSL_PUBLIC[..50]] {
            check(public(text), "it is no key");
        }
    }
}
