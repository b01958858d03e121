//! How an index of FAISS is stored.
//!
//! FAISS trusts what it reads: a changed length makes it allocate or access what is not there. So its bytes are stored in
//! frames with checksums, and it sees none that was not verified.
//!
//! | part | bytes | content |
//! |---|---|---|
//! | magic | 8 | `VSFAISS` and a zero |
//! | format | 4 | 1 |
//! | metric | 4 | 0 cosine, 1 L2, 2 dot |
//! | dimension, rows | 4 + 4 | of the rows |
//! | scale | 4 | what rows were multiplied by, f32 |
//! | length of the factory string | 4 | 1 to 128 |
//! | factory string | as said | as it was asked for |
//! | checksum | 4 | CRC-32C of all before |
//! | frames | 4 + 4 + n | length n, 1 to 1 MiB; CRC-32C of the frame's number (8 bytes) and its bytes; FAISS' bytes |
//! | last frame | 4 + 4 | length 0 and checksum: the index is whole |
//!
//! Numbers are little endian.

use std::io::{self, Read, Write};

use super::error::FaissError;
use super::factory::Factory;
use super::native::{Native, Sink, Source};
use crate::Metric;

/// Version of the format that is written, and the highest that is read.
pub(super) const FORMAT: u32 = 1;
const MAGIC: [u8; 8] = *b"VSFAISS\0";
/// Bytes of a frame: large enough for fast checksums, small enough for any machine.
const FRAME_BYTES: usize = 1 << 20;
/// Bytes of the header before the factory string.
const FIXED_BYTES: usize = 32;
const FACTORY_BYTES_MAX: usize = 128;

/// What is stored beside FAISS' own bytes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Header {
    pub(super) factory: Factory,
    pub(super) rows: u32,
    pub(super) scale: f32,
}

/// Writes an index.
pub(super) fn write(header: &Header, native: &Native, writer: &mut dyn Write) -> Result<(), FaissError> {
    writer.write_all(&header.encoded()).map_err(FaissError::Write)?;
    let mut frames = FrameWriter { writer, buffer: Vec::new(), number: 0, failure: None };
    let outcome = native.write(&mut frames);
    if let Some(failure) = frames.failure.take() {
        return Err(FaissError::Write(failure));
    }
    outcome.map_err(|refusal| refusal.into_error("write an index"))?;
    frames.finish().map_err(FaissError::Write)
}

/// Reads an index up to its last byte, and nothing behind it.
pub(super) fn read(reader: &mut dyn Read) -> Result<(Header, Native), FaissError> {
    let header = Header::read(reader)?;
    let mut frames = FrameReader { reader, frame: Vec::new(), taken: 0, number: 0, failure: None };
    let outcome = Native::read(&mut frames);
    if let Some(failure) = frames.failure.take() {
        return Err(failure);
    }
    let native = outcome.map_err(|refusal| refusal.into_error("read an index"))?;
    if frames.taken < frames.frame.len() || frames.next_frame()? {
        return Err(FaissError::Damaged("it goes on behind its end"));
    }
    if native.len() != u64::from(header.rows) || native.dimension() != header.factory.dimension() {
        return Err(FaissError::Damaged("it holds other rows than its header says"));
    }
    if native.metric() != super::index::native_metric(header.factory.metric()) {
        return Err(FaissError::Damaged("it compares otherwise than its header says"));
    }
    Ok((header, native))
}

impl Header {
    fn encoded(&self) -> Vec<u8> {
        let factory = self.factory.to_string();
        assert!(factory.len() <= FACTORY_BYTES_MAX, "checked when it was parsed");
        let metric: u32 = match self.factory.metric() {
            Metric::Cosine => 0,
            Metric::L2 => 1,
            Metric::Dot => 2,
        };
        let mut bytes = MAGIC.to_vec();
        for number in [FORMAT, metric, self.factory.dimension() as u32, self.rows, self.scale.to_bits()] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&(factory.len() as u32).to_le_bytes());
        bytes.extend_from_slice(factory.as_bytes());
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn read(reader: &mut dyn Read) -> Result<Header, FaissError> {
        let mut bytes = vec![0; FIXED_BYTES];
        fill(reader, &mut bytes)?;
        if bytes[..8] != MAGIC {
            return Err(FaissError::Damaged("it does not begin as one does"));
        }
        let number =
            |at: usize, bytes: &[u8]| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let length = number(28, &bytes) as usize;
        if number(8, &bytes) > FORMAT {
            return Err(FaissError::Format(number(8, &bytes)));
        }
        if !(1..=FACTORY_BYTES_MAX).contains(&length) {
            return Err(FaissError::Damaged("its header has an impossible length"));
        }
        bytes.resize(FIXED_BYTES + length + 4, 0);
        fill(reader, &mut bytes[FIXED_BYTES..])?;
        let (told, checksum) = bytes.split_at(FIXED_BYTES + length);
        if crc32c::crc32c(told) != number(0, checksum) {
            return Err(FaissError::Damaged("the checksum of its header is wrong"));
        }
        let metric = match number(12, told) {
            0 => Metric::Cosine,
            1 => Metric::L2,
            2 => Metric::Dot,
            _ => return Err(FaissError::Damaged("its metric is unknown")),
        };
        let factory = std::str::from_utf8(&told[FIXED_BYTES..])
            .map_err(|_| FaissError::Damaged("its factory string is no text"))?;
        let factory = Factory::parse(factory, number(16, told) as usize, metric)?;
        Ok(Header { factory, rows: number(20, told), scale: f32::from_bits(number(24, told)) })
    }
}

/// Puts FAISS' bytes into frames.
struct FrameWriter<'w> {
    writer: &'w mut dyn Write,
    buffer: Vec<u8>,
    number: u64,
    failure: Option<io::Error>,
}

impl FrameWriter<'_> {
    fn put_frame(&mut self) -> io::Result<()> {
        let checksum = frame_checksum(self.number, &self.buffer);
        self.writer.write_all(&(self.buffer.len() as u32).to_le_bytes())?;
        self.writer.write_all(&checksum.to_le_bytes())?;
        self.writer.write_all(&self.buffer)?;
        self.buffer.clear();
        self.number += 1;
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.put_frame()?;
        }
        self.put_frame()?;
        self.writer.flush()
    }
}

impl Sink for FrameWriter<'_> {
    fn take(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(FRAME_BYTES - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == FRAME_BYTES
                && let Err(failure) = self.put_frame()
            {
                self.failure = Some(failure);
                return false;
            }
        }
        true
    }
}

/// Gives FAISS the bytes of verified frames.
struct FrameReader<'r> {
    reader: &'r mut dyn Read,
    frame: Vec<u8>,
    /// Bytes of the frame that were given.
    taken: usize,
    number: u64,
    failure: Option<FaissError>,
}

impl FrameReader<'_> {
    /// Reads the next frame in place of the last; false when it says that the index is whole.
    fn next_frame(&mut self) -> Result<bool, FaissError> {
        let mut head = [0; 8];
        fill(self.reader, &mut head)?;
        let [length, checksum] =
            [&head[..4], &head[4..]].map(|part| u32::from_le_bytes(part.try_into().expect("four bytes")));
        if length as usize > FRAME_BYTES {
            return Err(FaissError::Damaged("a frame has an impossible length"));
        }
        self.frame.resize(length as usize, 0);
        self.taken = 0;
        fill(self.reader, &mut self.frame)?;
        if frame_checksum(self.number, &self.frame) != checksum {
            return Err(FaissError::Damaged("the checksum of a frame is wrong"));
        }
        self.number += 1;
        Ok(length > 0)
    }

    fn try_give(&mut self, mut bytes: &mut [u8]) -> Result<(), FaissError> {
        while !bytes.is_empty() {
            if self.taken == self.frame.len() && !self.next_frame()? {
                return Err(FaissError::Damaged("it ends early"));
            }
            let count = bytes.len().min(self.frame.len() - self.taken);
            let (now, later) = bytes.split_at_mut(count);
            now.copy_from_slice(&self.frame[self.taken..self.taken + count]);
            self.taken += count;
            bytes = later;
        }
        Ok(())
    }
}

impl Source for FrameReader<'_> {
    fn give(&mut self, bytes: &mut [u8]) -> bool {
        if self.failure.is_some() {
            return false;
        }
        self.failure = self.try_give(bytes).err();
        self.failure.is_none()
    }
}

fn frame_checksum(number: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), bytes)
}

/// Reads all bytes; a stream that ends before is damaged.
fn fill(reader: &mut dyn Read, bytes: &mut [u8]) -> Result<(), FaissError> {
    reader.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => FaissError::Damaged("it ends early"),
        _ => FaissError::Read(error),
    })
}
