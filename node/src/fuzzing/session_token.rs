//! A session token. It has no checksum: a client that changes it asks for something else.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::ids::TableId;
use crate::router::session_token::{SessionToken, TOKEN_BYTES_MAX};

const VERSION: u8 = 2;

/// Checks the text of a token.
pub fn session_token(bytes: &[u8]) -> bool {
    // As positions of a token that is well-formed otherwise: nobody finds base64 by chance.
    let positions = [&[VERSION], &table().as_bytes()[..], bytes].concat();
    check(&URL_SAFE_NO_PAD.encode(positions));
    std::str::from_utf8(bytes).is_ok_and(check)
}

fn check(text: &str) -> bool {
    let Ok(token) = SessionToken::decode(text, table()) else { return false };
    let encoded = token.encode();
    assert!(encoded.len() <= text.len().max(SessionToken::empty(table()).encode().len()));
    assert!(encoded.len() <= TOKEN_BYTES_MAX);
    assert_eq!(SessionToken::decode(&encoded, table()), Ok(token.clone()));
    for (shard, position) in &token.positions {
        assert_eq!(token.position(*shard), *position);
    }
    true
}

/// The table of every token here.
pub(super) fn table() -> TableId {
    TableId::parse("7f2c1c6e-6d5b-4b7e-9a53-0f6d4a3a2b1c").expect("well-formed")
}
