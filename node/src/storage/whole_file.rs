//! Small files that are always read and replaced as a whole.
//!
//! | offset | bytes | |
//! |--:|--:|---|
//! | 0 | 8 | magic, one for each kind of file |
//! | 8 | 4 | format version |
//! | 12 | 8 | length of the body |
//! | 20 | | body, a protobuf message |
//! | 20 + length | 4 | CRC-32C of everything before |

use std::io;
use std::path::Path;

use crc32c::crc32c;
use prost::Message;

use super::StorageError;
use crate::runtime::disk::Disk;

const HEADER_BYTES: usize = 20;

/// A kind of file.
pub(super) struct WholeFile {
    pub(super) magic: [u8; 8],
    pub(super) version: u32,
}

impl WholeFile {
    /// Replaces the file, or makes it. On return it is durable; after a failure or crash the old one is there, or the
    /// new one.
    pub(super) fn replace(
        &self,
        disk: &dyn Disk,
        path: &Path,
        body: &impl Message,
    ) -> Result<(), StorageError> {
        let body = body.encode_to_vec();
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len() + 4);
        bytes.extend_from_slice(&self.magic);
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());

        let draft = path.with_extension("tmp");
        match disk.remove(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StorageError::write(&draft)(error));
            }
            _ => {}
        }
        let mut file = disk.create(&draft).map_err(StorageError::write(&draft))?;
        file.append(&bytes).map_err(StorageError::write(&draft))?;
        file.sync().map_err(StorageError::sync(&draft))?;
        disk.rename(&draft, path).map_err(StorageError::write(path))?;
        let directory = path.parent().expect("a file has a directory");
        disk.sync_dir(directory).map_err(StorageError::sync(directory))
    }

    /// Reads the file; `None` when there is none.
    pub(super) fn read<M: Message + Default>(
        &self,
        disk: &dyn Disk,
        path: &Path,
    ) -> Result<Option<M>, StorageError> {
        let bytes = match disk.read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(StorageError::read(path))?,
        };
        let damaged = |reason: &str| StorageError::damaged(path, reason);
        let (content, crc) = bytes.split_last_chunk::<4>().ok_or_else(|| damaged("is cut off"))?;
        if content.len() < HEADER_BYTES
            || content[..8] != self.magic
            || crc32c(content) != u32::from_le_bytes(*crc)
        {
            return Err(damaged("checksum does not fit"));
        }
        let version = u32::from_le_bytes(content[8..12].try_into().expect("four bytes"));
        if version != self.version {
            let reason = format!("format {version}, known is {}", self.version);
            return Err(StorageError::Newer { path: path.to_path_buf(), reason });
        }
        let length = u64::from_le_bytes(content[12..20].try_into().expect("eight bytes"));
        if length != (content.len() - HEADER_BYTES) as u64 {
            return Err(damaged("length does not fit"));
        }
        M::decode(&content[HEADER_BYTES..]).map(Some).map_err(|error| damaged(&error.to_string()))
    }

    /// Changes the body in a file's bytes, with the length and the checksum that fit.
    #[cfg(test)]
    pub(super) fn change_content(bytes: &mut Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) {
        let mut body = bytes[HEADER_BYTES..bytes.len() - 4].to_vec();
        change(&mut body);
        bytes.truncate(12);
        bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes.extend_from_slice(&crc32c(bytes).to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::disk::MemoryDisk;

    const FILE: WholeFile = WholeFile { magic: *b"TESTFILE", version: 1 };

    #[test]
    fn a_crash_leaves_the_old_file_or_the_new_one() {
        let path = Path::new("file");
        for seed in 0..200 {
            let disk = MemoryDisk::new(seed);
            FILE.replace(&disk, path, &"old".to_owned()).expect("written");
            disk.power_off_after(seed % 7);
            let written = FILE.replace(&disk, path, &"new".to_owned()).is_ok();
            disk.crash();
            let found: String = FILE.read(&disk, path).expect("whole").expect("there");
            assert!(found == "new" || !written && found == "old", "{found}");
        }
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let disk = MemoryDisk::new(1);
        let path = Path::new("file");
        assert_eq!(FILE.read::<String>(&disk, path).expect("absent"), None);
        FILE.replace(&disk, path, &"content".to_owned()).expect("written");
        for bit in 0..disk.read(path).expect("there").len() * 8 {
            disk.flip_bit(path, bit / 8, (bit % 8) as u8);
            assert!(FILE.read::<String>(&disk, path).is_err(), "bit {bit}");
            disk.flip_bit(path, bit / 8, (bit % 8) as u8);
        }
        assert_eq!(FILE.read::<String>(&disk, path).expect("whole").as_deref(), Some("content"));
    }
}
