//! Signing a statement with a key: a Sigstore bundle over a DSSE envelope, as `model_signing verify key`
//! reads it.
//!
//! The key never reaches a daemon: who asks for the signature makes it.

use base64ct::{Base64, Encoding};
use p256::SecretKey;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::{DecodePrivateKey, EncodePublicKey, LineEnding};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::format::ids::to_hex;

const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// Begin of a key as `openssl ecparam -genkey` writes it.
const SEC1_BEGIN: &str = "-----BEGIN EC PRIVATE KEY-----";

/// Why a key cannot sign.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("the key is encrypted: decrypt it first, with `openssl pkey -in KEY -out PLAIN`")]
    Encrypted,
    #[error("the key is no private key of the curve P-256 in PEM: {0}")]
    Key(String),
}

/// Signs the payload of a statement with an unencrypted P-256 key in PEM (PKCS #8 or SEC 1).
///
/// Signatures are deterministic (RFC 6979): the same key and payload make the same bundle.
///
/// # Errors
/// Where the key is none that can be used.
pub fn sign(payload: &str, key_pem: &str) -> Result<String, SignError> {
    let key = load_key(key_pem)?;
    let public = key.public_key().to_public_key_pem(LineEnding::LF);
    let public = public.map_err(|error| SignError::Key(error.to_string()))?;
    let signature: Signature = SigningKey::from(key).sign(&authenticated(payload));
    let bundle = json!({
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {
            "publicKey": { "hint": to_hex(&Sha256::digest(public)) },
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": Base64::encode_string(payload.as_bytes()),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{ "sig": Base64::encode_string(signature.to_der().as_bytes()), "keyid": "" }],
        },
    });
    Ok(format!("{bundle}\n"))
}

fn load_key(pem: &str) -> Result<SecretKey, SignError> {
    if pem.contains("ENCRYPTED") {
        return Err(SignError::Encrypted);
    }
    // Parameters of the curve may come before the key.
    let loaded = match pem.find(SEC1_BEGIN) {
        Some(start) => SecretKey::from_sec1_pem(&pem[start..]).map_err(|e| e.to_string()),
        None => SecretKey::from_pkcs8_pem(pem).map_err(|e| e.to_string()),
    };
    loaded.map_err(SignError::Key)
}

/// What the signature is of: the payload with its type, so that it means nothing elsewhere.
///
/// Source: DSSE v1, "pre-authentication encoding".
fn authenticated(payload: &str) -> Vec<u8> {
    let (type_bytes, bytes) = (PAYLOAD_TYPE.len(), payload.len());
    format!("DSSEv1 {type_bytes} {PAYLOAD_TYPE} {bytes} {payload}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use p256::ecdsa::VerifyingKey;
    use p256::ecdsa::signature::Verifier;
    use p256::pkcs8::EncodePrivateKey;
    use serde_json::Value;

    fn key() -> SecretKey {
        SecretKey::from_slice(&[7; 32]).expect("below the order of the curve")
    }

    #[test]
    fn a_signature_is_of_the_payload_with_its_type() {
        let pem = key().to_pkcs8_pem(LineEnding::LF).expect("PEM");
        let bundle: Value = serde_json::from_str(&sign("{}", &pem).expect("signed")).expect("JSON");
        let signature = bundle["dsseEnvelope"]["signatures"][0]["sig"].as_str().expect("text");
        let der = Base64::decode_vec(signature).expect("base64");
        let signature = Signature::from_der(&der).expect("a signature");
        let public = VerifyingKey::from(&SigningKey::from(key()));
        let signed = b"DSSEv1 28 application/vnd.in-toto+json 2 {}";
        assert!(public.verify(signed, &signature).is_ok());
        assert!(public.verify(b"{}", &signature).is_err());
    }

    #[test]
    fn both_forms_of_a_key_are_read_and_others_refused() {
        let sec1 = key().to_sec1_pem(LineEnding::LF).expect("PEM");
        let parameters =
            "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        let pkcs8 = key().to_pkcs8_pem(LineEnding::LF).expect("PEM");
        let same = sign("x", &pkcs8).expect("signed");
        assert_eq!(sign("x", &format!("{parameters}{}", *sec1)).expect("signed"), same);
        assert!(matches!(sign("x", "hello"), Err(SignError::Key(_))));
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\n";
        assert!(matches!(sign("x", encrypted), Err(SignError::Encrypted)));
    }
}
