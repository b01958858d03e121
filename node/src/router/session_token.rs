//! Session tokens: the positions that a later read must have seen. Pure.
//!
//! A token is opaque to clients. It is a hint that makes reads wait, never a right, so it is not signed.
//!
//! | field | size |
//! |---|---|
//! | version, 2 | 1 byte |
//! | table id | 16 bytes |
//! | for each shard, ascending: difference to the shard before, incarnation, LSN | three LEB128 numbers |
//!
//! as URL-safe base64 without padding.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::ids::{Lsn, ShardIndex, TableId};

/// Longest token that is read: a batch of 1,000 documents over 1,000 shards fits.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

const VERSION: u8 = 2;

/// Positions in the shards of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionToken {
    /// The table that they belong to.
    pub table: TableId,
    /// Largest position seen, by shard.
    pub positions: BTreeMap<ShardIndex, SeenPosition>,
}

/// A position in one shard's log, ordered by how much of the shard's history lies before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeenPosition {
    /// Of the shard when the position was seen: in another one the same position may be another record.
    pub incarnation: u64,
    /// The position; [`Lsn::ZERO`]: nothing was seen.
    pub lsn: Lsn,
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than [`TOKEN_BYTES_MAX`].
    #[error("session token has {0} bytes, at most {max} are allowed", max = TOKEN_BYTES_MAX)]
    TooLong(usize),
    /// Not made by this system, or damaged.
    #[error("session token is not one that this cluster returned")]
    Malformed,
    /// Made by a call to another table, perhaps one of the same name before.
    #[error("session token belongs to another table")]
    OtherTable,
}

impl SessionToken {
    /// The token that demands nothing.
    pub fn empty(table: TableId) -> SessionToken {
        SessionToken { table, positions: BTreeMap::new() }
    }

    /// The text that clients keep.
    pub fn encode(&self) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(self.table.as_bytes());
        let mut previous = 0;
        for (shard, position) in &self.positions {
            put_number(&mut bytes, u64::from(shard.0 - previous));
            put_number(&mut bytes, position.incarnation);
            put_number(&mut bytes, position.lsn.0);
            previous = shard.0;
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a token for `table`. Empty text is the token that demands nothing.
    pub fn decode(text: &str, table: TableId) -> Result<SessionToken, TokenError> {
        let mut token = SessionToken::empty(table);
        if text.is_empty() {
            return Ok(token);
        }
        if text.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong(text.len()));
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Malformed)?;
        let (head, mut rest) = bytes.split_at_checked(17).ok_or(TokenError::Malformed)?;
        if head[0] != VERSION {
            return Err(TokenError::Malformed);
        }
        if head[1..] != table.as_bytes()[..] {
            return Err(TokenError::OtherTable);
        }
        let mut shard = 0u32;
        while !rest.is_empty() {
            let step = take_number(&mut rest)?;
            shard =
                u32::try_from(step).ok().and_then(|s| shard.checked_add(s)).ok_or(TokenError::Malformed)?;
            let incarnation = take_number(&mut rest)?;
            let lsn = Lsn(take_number(&mut rest)?);
            token.positions.insert(ShardIndex(shard), SeenPosition { incarnation, lsn });
        }
        Ok(token)
    }

    /// The position that a read of `shard` must have seen.
    pub fn position(&self, shard: ShardIndex) -> SeenPosition {
        self.positions.get(&shard).copied().unwrap_or_default()
    }

    /// Adds what another token of the table names.
    pub fn see_all(&mut self, other: &SessionToken) {
        other.positions.iter().for_each(|(shard, position)| self.see(*shard, *position));
    }

    /// Adds what an answer has shown of `shard`. Of two positions the later one stays.
    pub fn see(&mut self, shard: ShardIndex, position: SeenPosition) {
        match self.positions.entry(shard) {
            Entry::Occupied(mut known) if *known.get() < position => {
                known.insert(position);
            }
            Entry::Occupied(_) => {}
            Entry::Vacant(unknown) => {
                // Of an empty shard there is nothing that a later read could miss.
                if position.lsn > Lsn::ZERO {
                    unknown.insert(position);
                }
            }
        }
    }
}

fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> Result<u64, TokenError> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(TokenError::Malformed)?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if part << shift >> shift != part {
            return Err(TokenError::Malformed);
        }
        number |= part << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(TokenError::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(incarnation: u64, lsn: u64) -> SeenPosition {
        SeenPosition { incarnation, lsn: Lsn(lsn) }
    }

    proptest! {
        #[test]
        fn tokens_round_trip(
            positions in prop::collection::btree_map(0u32..1024, (any::<u64>(), any::<u64>()), 0..50)
        ) {
            let position = |(shard, (incarnation, lsn))| (ShardIndex(shard), at(incarnation, lsn));
            let positions = positions.into_iter().map(position).collect();
            let token = SessionToken { table: TableId::random(), positions };
            prop_assert_eq!(SessionToken::decode(&token.encode(), token.table), Ok(token));
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let table = TableId::random();
            let _ = SessionToken::decode(&text, table);
            let mut whole = vec![VERSION];
            whole.extend_from_slice(table.as_bytes());
            whole.extend(bytes);
            let _ = SessionToken::decode(&URL_SAFE_NO_PAD.encode(whole), table);
        }
    }

    #[test]
    fn the_largest_answers_fit() {
        let positions = (0..1024).map(|shard| (ShardIndex(shard), at(1, 1 << 40))).collect();
        assert!(SessionToken { table: TableId::random(), positions }.encode().len() <= TOKEN_BYTES_MAX);
    }

    #[test]
    fn a_token_of_another_table_or_form_is_refused() {
        let token = SessionToken::empty(TableId::random());
        assert_eq!(SessionToken::decode(&token.encode(), TableId::random()), Err(TokenError::OtherTable));
        assert_eq!(SessionToken::decode("%", token.table), Err(TokenError::Malformed));
        assert_eq!(SessionToken::decode("", token.table).map(|t| t.positions.len()), Ok(0));
        let older = [&[1], &token.table.as_bytes()[..], &[3, 9]].concat();
        let older = SessionToken::decode(&URL_SAFE_NO_PAD.encode(older), token.table);
        assert_eq!(older, Err(TokenError::Malformed));
    }

    #[test]
    fn the_later_position_stays_and_a_newer_incarnation_is_later() {
        let mut token = SessionToken::empty(TableId::random());
        let shard = ShardIndex(3);
        let mut seen = |position| {
            token.see(shard, position);
            token.position(shard)
        };
        assert_eq!(seen(at(0, 0)), at(0, 0));
        assert_eq!(seen(at(0, 9)), at(0, 9));
        assert_eq!(seen(at(0, 8)), at(0, 9));
        assert_eq!(seen(at(1, 2)), at(1, 2));
        assert_eq!(seen(at(0, 100)), at(1, 2));
        assert_eq!(token.positions.len(), 1);
    }
}
