//! How rows keep their values.

use crate::distance::halves::{HALF_LINE, HalfKind, HalfLine, append_query};
use crate::line::{self, LINE, Line};

/// How each value of a row is kept. Queries stay in single precision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StorageType {
    /// Single precision, four bytes: as given.
    #[default]
    F32,
    /// IEEE 754 binary16, two bytes: 11 bits of precision, magnitudes up to 65,504.
    F16,
    /// bfloat16, two bytes: 8 bits of precision, all magnitudes of single precision.
    Bf16,
}

impl StorageType {
    /// Every type, for messages that say what is allowed.
    pub const ALL: [StorageType; 3] = [StorageType::F32, StorageType::F16, StorageType::Bf16];

    /// The word that users write.
    pub const fn as_str(self) -> &'static str {
        match self {
            StorageType::F32 => "f32",
            StorageType::F16 => "f16",
            StorageType::Bf16 => "bf16",
        }
    }

    /// The type of a word; empty means the default.
    pub fn parse(word: &str) -> Option<StorageType> {
        if word.is_empty() {
            return Some(StorageType::F32);
        }
        StorageType::ALL.into_iter().find(|storage_type| storage_type.as_str() == word)
    }

    /// Bytes of a value, 2 or 4.
    pub const fn value_bytes(self) -> usize {
        match self {
            StorageType::F32 => 4,
            StorageType::F16 | StorageType::Bf16 => 2,
        }
    }

    /// Largest magnitude that it holds.
    pub fn largest(self) -> f32 {
        match self {
            StorageType::F32 => f32::MAX,
            StorageType::F16 => half::f16::MAX.to_f32_const(),
            StorageType::Bf16 => half::bf16::MAX.to_f32_const(),
        }
    }

    /// Makes each of finite `values` the one that is kept of it: the nearest, of two equally near the even one.
    ///
    /// # Errors
    /// The index of the first value that would be infinite; nothing is changed then.
    pub fn round(self, values: &mut [f32]) -> Result<(), usize> {
        let Some(kind) = self.half() else { return Ok(()) };
        let fits = |value: &f32| kind.is_finite(kind.rounded(*value));
        if let Some(index) = values.iter().position(|value| !fits(value)) {
            return Err(index);
        }
        values.iter_mut().for_each(|value| *value = kind.widened(kind.rounded(*value)));
        Ok(())
    }

    /// True when each of `values` is kept as it is.
    pub fn holds(self, values: &[f32]) -> bool {
        let Some(kind) = self.half() else { return true };
        values.iter().all(|value| {
            let bits = kind.rounded(*value);
            kind.is_finite(bits) && kind.widened(bits).to_bits() == value.to_bits()
        })
    }

    /// The bytes of a row's values in files, little-endian.
    pub fn append_bytes(self, row: &[f32], bytes: &mut Vec<u8>) {
        match self.half() {
            None if cfg!(target_endian = "little") => bytes.extend_from_slice(bytemuck::cast_slice(row)),
            None => row.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes())),
            Some(kind) => {
                row.iter().for_each(|value| bytes.extend_from_slice(&kind.rounded(*value).to_le_bytes()));
            }
        }
    }

    /// Reads a row's values from their bytes in files: `row.len()` times [`StorageType::value_bytes`]. False when one is
    /// not finite, which no row holds.
    pub fn read_bytes(self, bytes: &[u8], row: &mut [f32]) -> bool {
        debug_assert_eq!(bytes.len(), row.len() * self.value_bytes(), "the bytes of one row");
        match self.half() {
            None => {
                for (value, bytes) in row.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *value = f32::from_le_bytes(*bytes);
                }
                row.iter().all(|value| value.is_finite())
            }
            Some(kind) => {
                for (value, bytes) in row.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *value = kind.widened(u16::from_le_bytes(*bytes));
                }
                bytes.as_chunks::<2>().0.iter().all(|bytes| kind.is_finite(u16::from_le_bytes(*bytes)))
            }
        }
    }

    /// The two bytes of a value; `None`: it has four.
    pub(crate) const fn half(self) -> Option<HalfKind> {
        match self {
            StorageType::F32 => None,
            StorageType::F16 => Some(HalfKind::Float16),
            StorageType::Bf16 => Some(HalfKind::Bfloat16),
        }
    }

    /// Bytes of a row of `dimension` values in memory: whole cache lines.
    pub const fn row_bytes(self, dimension: usize) -> usize {
        self.lines_of(dimension) * size_of::<Line>()
    }

    /// Lines that a row of `dimension` values fills.
    pub(crate) const fn lines_of(self, dimension: usize) -> usize {
        match self {
            StorageType::F32 => dimension.div_ceil(LINE),
            StorageType::F16 | StorageType::Bf16 => dimension.div_ceil(HALF_LINE),
        }
    }

    /// Appends a row to `lines`, filled up with zeros.
    pub(crate) fn append(self, row: &[f32], lines: &mut Vec<Line>) {
        match self.half() {
            None => line::append(row, lines),
            Some(kind) => {
                lines.extend(
                    row.chunks(HALF_LINE).map(|values| bytemuck::cast::<HalfLine, Line>(kind.line(values))),
                );
            }
        }
    }

    /// Appends a query to `lines` as the kernels take it for such rows.
    pub(crate) fn append_query(self, query: &[f32], lines: &mut Vec<Line>) {
        match self.half() {
            None => line::append(query, lines),
            Some(_) => append_query(query, lines),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_keeps_the_nearest_and_refuses_what_does_not_fit() {
        let mut values = [65_519.0, 0.1, -1.0, 1e-9, 1.0 + 1.0 / 2_048.0, -0.0];
        assert_eq!(StorageType::F16.round(&mut values), Ok(()));
        assert!(StorageType::F16.holds(&values) && !StorageType::F16.holds(&[0.1]));
        assert!(StorageType::F32.holds(&[0.1]) && !StorageType::F16.holds(&[1e6]));
        assert_eq!(values[..5], [65_504.0, 0.099_975_586, -1.0, 0.0, 1.0], "65,519 is nearer to the largest");
        assert_eq!(values[5].to_bits(), (-0.0f32).to_bits());
        let mut values = [1.5, -65_520.0, 0.1];
        assert_eq!(StorageType::F16.round(&mut values), Err(1), "would be infinite");
        assert_eq!(values, [1.5, -65_520.0, 0.1]);
        assert_eq!(StorageType::Bf16.round(&mut values), Ok(()));
        assert_eq!(values, [1.5, -65_536.0, 0.100_097_656]);
        let mut any = [0.1, 1e18];
        assert_eq!(StorageType::F32.round(&mut any), Ok(()));
        assert_eq!(any, [0.1, 1e18]);
    }

    #[test]
    fn bytes_round_trip_and_an_infinite_value_is_seen() {
        for storage_type in StorageType::ALL {
            let mut row = [1.5, -0.1, 1e-7, 65_504.0, -0.0];
            assert_eq!(storage_type.round(&mut row), Ok(()));
            let mut bytes = Vec::new();
            storage_type.append_bytes(&row, &mut bytes);
            assert_eq!(bytes.len(), row.len() * storage_type.value_bytes());
            let mut read = [0.0; 5];
            assert!(storage_type.read_bytes(&bytes, &mut read));
            assert_eq!(read.map(f32::to_bits), row.map(f32::to_bits), "{storage_type:?}");
            bytes.fill(0xff);
            assert!(!storage_type.read_bytes(&bytes, &mut read), "{storage_type:?}");
        }
    }

    #[test]
    fn words_round_trip() {
        for storage_type in StorageType::ALL {
            assert_eq!(StorageType::parse(storage_type.as_str()), Some(storage_type));
        }
        assert_eq!((StorageType::parse(""), StorageType::parse("f64")), (Some(StorageType::F32), None));
    }
}
