//! JSON web tokens, one algorithm only: EdDSA over Ed25519 (RFC 8037).
//!
//! Verification is strict by construction. The header has exactly `alg`, `typ` and `kid`, so a
//! token cannot bring its own key (`jwk`, `jku`, `x5c`) or its own rules (`crit`, `b64`); `kid` is
//! looked up among our keys and never used as anything else; the type of an access token (RFC
//! 9068) and its audience keep it apart from an admission token.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tmomi_engine::ids::TimeMs;

/// The audience of access tokens.
pub(crate) const ACCESS_AUDIENCE: &str = "tmomi";
/// The audience of admission tokens.
pub(crate) const ADMISSION_AUDIENCE: &str = "tmomi-admission";
/// Bytes of a token that is looked at at all.
const TOKEN_BYTES_MAX: usize = 2_048;
/// How far the clocks of nodes may be apart.
const LEEWAY_S: u64 = 2;

const ALGORITHM: &str = "EdDSA";
const ACCESS_TYPE: &str = "at+jwt";
const ADMISSION_TYPE: &str = "admission+jwt";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header<'a> {
    alg: &'a str,
    typ: &'a str,
    kid: &'a str,
}

/// What an access token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AccessClaims {
    /// Who issued it.
    pub(crate) iss: String,
    /// Whom it is for: [`ACCESS_AUDIENCE`].
    pub(crate) aud: String,
    /// The user's id as text.
    pub(crate) sub: String,
    /// `buyer` or `admin`.
    pub(crate) role: String,
    /// The session it belongs to.
    pub(crate) sid: u64,
    /// When it was issued, seconds since 1970.
    pub(crate) iat: u64,
    /// Not good before.
    pub(crate) nbf: u64,
    /// Not good from then on.
    pub(crate) exp: u64,
    /// Unlike every other token.
    pub(crate) jti: String,
}

/// What an admission token says, to this server and to other shops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AdmissionClaims {
    /// Who issued it.
    pub(crate) iss: String,
    /// Whom it is for: [`ADMISSION_AUDIENCE`].
    pub(crate) aud: String,
    /// The user's id as text.
    pub(crate) sub: String,
    /// The showtime that the buyer was let in to.
    pub(crate) showtime_id: u32,
    /// The buyer's number in its line.
    pub(crate) number: u32,
    /// When it was issued, seconds since 1970.
    pub(crate) iat: u64,
    /// When the buyer's session ends.
    pub(crate) exp: u64,
}

/// Why a token is not good. The client is told none of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadToken {
    /// It is no token of three parts with the header we write.
    Malformed,
    /// Its algorithm is not ours.
    Algorithm,
    /// It is a token of another kind.
    Type,
    /// No key of ours, or a retired one.
    Key,
    /// Not signed by that key.
    Signature,
    /// From or for someone else.
    Audience,
    /// Not good yet, or no more.
    Time,
}

/// The keys at one time: one signs, all verify.
#[derive(Debug)]
pub(crate) struct Keyring {
    kid: String,
    signing: SigningKey,
    verifying: HashMap<String, VerifyingKey>,
}

impl Keyring {
    /// `kid` and `secret` sign; `older` keys still verify.
    pub(crate) fn new<'a>(
        kid: &str,
        secret: &[u8; 32],
        older: impl Iterator<Item = (&'a str, &'a [u8; 32])>,
    ) -> Keyring {
        let signing = SigningKey::from_bytes(secret);
        let older = older
            .map(|(kid, secret)| (kid.to_owned(), SigningKey::from_bytes(secret).verifying_key()));
        let mut verifying: HashMap<_, _> = older.collect();
        verifying.insert(kid.to_owned(), signing.verifying_key());
        Keyring { kid: kid.to_owned(), signing, verifying }
    }

    /// The public keys as a JWK set (RFC 7517, RFC 8037).
    pub(crate) fn jwks(&self) -> serde_json::Value {
        let mut keys: Vec<_> = self.verifying.iter().collect();
        keys.sort_unstable_by_key(|(kid, _)| *kid);
        let keys = keys.into_iter().map(|(kid, key)| {
            serde_json::json!({
                "kty": "OKP",
                "crv": "Ed25519",
                "alg": ALGORITHM,
                "use": "sig",
                "kid": kid,
                "x": URL_SAFE_NO_PAD.encode(key.as_bytes()),
            })
        });
        serde_json::json!({ "keys": keys.collect::<Vec<_>>() })
    }

    /// Signs an access token.
    pub(crate) fn sign_access(&self, claims: &AccessClaims) -> String {
        self.sign(ACCESS_TYPE, claims)
    }

    /// Signs an admission token.
    pub(crate) fn sign_admission(&self, claims: &AdmissionClaims) -> String {
        self.sign(ADMISSION_TYPE, claims)
    }

    /// Reads an access token of `issuer` that is good at `now`.
    ///
    /// # Errors
    ///
    /// [`BadToken`] for every token that [`Keyring::sign_access`] did not make.
    pub(crate) fn verify_access(
        &self,
        token: &str,
        issuer: &str,
        now: TimeMs,
    ) -> Result<AccessClaims, BadToken> {
        let claims: AccessClaims = self.verify(token, ACCESS_TYPE)?;
        if claims.iss != issuer || claims.aud != ACCESS_AUDIENCE {
            return Err(BadToken::Audience);
        }
        let now_s = now.0 / 1_000;
        if now_s >= claims.exp || claims.nbf > now_s + LEEWAY_S || claims.iat > now_s + LEEWAY_S {
            return Err(BadToken::Time);
        }
        Ok(claims)
    }

    fn sign(&self, kind: &str, claims: &impl Serialize) -> String {
        let header = Header { alg: ALGORITHM, typ: kind, kid: &self.kid };
        let mut token = String::with_capacity(512);
        encode_part(&mut token, &header);
        token.push('.');
        encode_part(&mut token, claims);
        let signature = self.signing.sign(token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.to_bytes(), &mut token);
        token
    }

    fn verify<T: DeserializeOwned>(&self, token: &str, kind: &str) -> Result<T, BadToken> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(BadToken::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(BadToken::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(BadToken::Malformed)?;
        let header = decode_part(header)?;
        let header: Header<'_> =
            serde_json::from_slice(&header).map_err(|_| BadToken::Malformed)?;
        if header.alg != ALGORITHM {
            return Err(BadToken::Algorithm);
        }
        if header.typ != kind {
            return Err(BadToken::Type);
        }
        let key = self.verifying.get(header.kid).ok_or(BadToken::Key)?;
        let signature = decode_part(signature)?;
        let signature = Signature::from_slice(&signature).map_err(|_| BadToken::Signature)?;
        key.verify_strict(signed.as_bytes(), &signature).map_err(|_| BadToken::Signature)?;
        serde_json::from_slice(&decode_part(claims)?).map_err(|_| BadToken::Malformed)
    }
}

fn encode_part(token: &mut String, part: &impl Serialize) {
    let json = serde_json::to_vec(part).expect("texts and numbers");
    URL_SAFE_NO_PAD.encode_string(json, token);
}

/// Decodes unpadded base64url and refuses every other spelling of the same bytes.
fn decode_part(text: &str) -> Result<Vec<u8>, BadToken> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| BadToken::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: TimeMs = TimeMs(1_700_000_000_000);
    const NOW_S: u64 = NOW.0 / 1_000;

    fn ring() -> Keyring {
        Keyring::new("k2", &[2; 32], [("k1", &[1; 32])].into_iter())
    }

    fn claims() -> AccessClaims {
        AccessClaims {
            iss: "tmomi".to_owned(),
            aud: ACCESS_AUDIENCE.to_owned(),
            sub: "7".to_owned(),
            role: "buyer".to_owned(),
            sid: 3,
            iat: NOW_S,
            nbf: NOW_S,
            exp: NOW_S + 900,
            jti: "a".to_owned(),
        }
    }

    /// Signs any header and claims with key `secret`, as a forger might.
    fn forge(header: serde_json::Value, claims: &impl Serialize, secret: u8) -> String {
        let mut token = String::new();
        encode_part(&mut token, &header);
        token.push('.');
        encode_part(&mut token, claims);
        let signature = SigningKey::from_bytes(&[secret; 32]).sign(token.as_bytes());
        format!("{token}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))
    }

    fn refusal(token: &str) -> BadToken {
        ring().verify_access(token, "tmomi", NOW).expect_err("a bad token")
    }

    fn with_claims(change: impl FnOnce(&mut AccessClaims)) -> BadToken {
        let mut claims = claims();
        change(&mut claims);
        refusal(&ring().sign_access(&claims))
    }

    #[test]
    fn what_the_ring_signs_it_verifies_and_so_with_an_older_key() {
        let token = ring().sign_access(&claims());
        assert_eq!(ring().verify_access(&token, "tmomi", NOW), Ok(claims()));
        let old = Keyring::new("k1", &[1; 32], std::iter::empty());
        let token = old.sign_access(&claims());
        assert_eq!(ring().verify_access(&token, "tmomi", NOW), Ok(claims()));
        let retired = Keyring::new("k3", &[3; 32], std::iter::empty());
        assert_eq!(retired.verify_access(&token, "tmomi", NOW), Err(BadToken::Key));
    }

    #[test]
    fn a_forged_header_is_refused() {
        let header = |alg: &str, typ: &str, kid: &str| json!({"alg": alg, "typ": typ, "kid": kid});
        let forged = |header| refusal(&forge(header, &claims(), 2));
        assert_eq!(forged(header("none", "at+jwt", "k2")), BadToken::Algorithm);
        assert_eq!(forged(header("HS256", "at+jwt", "k2")), BadToken::Algorithm);
        assert_eq!(forged(header("eddsa", "at+jwt", "k2")), BadToken::Algorithm);
        assert_eq!(forged(header("EdDSA", "JWT", "k2")), BadToken::Type);
        assert_eq!(forged(header("EdDSA", "at+jwt", "k9")), BadToken::Key);
        assert_eq!(forged(header("EdDSA", "at+jwt", "../../dev/null")), BadToken::Key);
        assert_eq!(forged(json!({"alg": "EdDSA", "typ": "at+jwt"})), BadToken::Malformed);
        let with_key = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": "k2", "jwk": {}});
        assert_eq!(forged(with_key), BadToken::Malformed);
        let critical = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": "k2", "crit": ["exp"]});
        assert_eq!(forged(critical), BadToken::Malformed);
    }

    #[test]
    fn a_forged_signature_is_refused() {
        let header = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": "k2"});
        assert_eq!(refusal(&forge(header, &claims(), 9)), BadToken::Signature);
        let token = ring().sign_access(&claims());
        let (signed, _) = token.rsplit_once('.').expect("three parts");
        assert_eq!(refusal(&format!("{signed}.")), BadToken::Signature);
        assert_eq!(refusal(signed), BadToken::Malformed);
        assert_eq!(refusal(&format!("{token}=")), BadToken::Malformed);
        let mut other = claims();
        other.role = "admin".to_owned();
        let raised = ring().sign_access(&other);
        let claims = raised.split('.').nth(1).expect("three parts");
        let parts: Vec<&str> = token.split('.').collect();
        let swapped = format!("{}.{claims}.{}", parts[0], parts[2]);
        assert_eq!(refusal(&swapped), BadToken::Signature);
    }

    #[test]
    fn claims_of_another_time_or_audience_are_refused() {
        assert_eq!(with_claims(|c| c.exp = NOW_S), BadToken::Time);
        assert_eq!(with_claims(|c| c.nbf = NOW_S + 3), BadToken::Time);
        assert_eq!(with_claims(|c| c.iss = "other".to_owned()), BadToken::Audience);
        assert_eq!(with_claims(|c| c.aud = ADMISSION_AUDIENCE.to_owned()), BadToken::Audience);
        assert_eq!(refusal(&"a".repeat(TOKEN_BYTES_MAX + 1)), BadToken::Malformed);
        assert_eq!(refusal(""), BadToken::Malformed);
    }

    #[test]
    fn an_admission_token_is_never_an_access_token() {
        let admission = AdmissionClaims {
            iss: "tmomi".to_owned(),
            aud: ADMISSION_AUDIENCE.to_owned(),
            sub: "7".to_owned(),
            showtime_id: 1,
            number: 1,
            iat: NOW_S,
            exp: NOW_S + 600,
        };
        assert_eq!(refusal(&ring().sign_admission(&admission)), BadToken::Type);
    }
}
