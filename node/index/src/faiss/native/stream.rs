//! Indexes to and from streams of bytes.
//!
//! FAISS calls a function that gets no context, on the thread that asked for the stream: so the other end of the stream is
//! kept for each thread while a call runs.

use std::cell::Cell;
use std::os::raw::c_void;
use std::ptr;
use std::slice;

use faiss_sys::{
    FaissIndex, faiss_CustomIOReader_free, faiss_CustomIOReader_new, faiss_CustomIOWriter_free,
    faiss_CustomIOWriter_new, faiss_read_index_custom, faiss_write_index_custom,
};

use super::{Refusal, tried};

/// Takes an index. Must not panic, and must not call FAISS.
pub(in crate::faiss) trait Sink {
    /// Takes all bytes; false when it could not.
    fn take(&mut self, bytes: &[u8]) -> bool;
}

/// Gives an index. Must not panic, and must not call FAISS.
pub(in crate::faiss) trait Source {
    /// Fills `bytes`; false when it could not.
    fn give(&mut self, bytes: &mut [u8]) -> bool;
}

thread_local! {
    static SINK: Cell<Option<*mut dyn Sink>> = const { Cell::new(None) };
    static SOURCE: Cell<Option<*mut dyn Source>> = const { Cell::new(None) };
}

pub(super) fn write(index: *const FaissIndex, sink: &mut dyn Sink) -> Result<(), Refusal> {
    let mut writer = ptr::null_mut();
    // SAFETY: the function has the type that is asked for.
    tried(unsafe { faiss_CustomIOWriter_new(&mut writer, Some(take)) })?;
    // SAFETY: only the lifetime changes; the pointer is forgotten before this function returns.
    let lasting: *mut (dyn Sink + 'static) = unsafe { std::mem::transmute(ptr::from_mut(sink)) };
    SINK.set(Some(lasting));
    // SAFETY: the index lives, and so does the writer, which is a writer as FAISS knows them.
    let code = unsafe { faiss_write_index_custom(index, writer.cast(), 0) };
    SINK.set(None);
    let outcome = tried(code);
    // SAFETY: made above, freed once.
    unsafe { faiss_CustomIOWriter_free(writer) };
    outcome
}

pub(super) fn read(source: &mut dyn Source) -> Result<*mut FaissIndex, Refusal> {
    let mut reader = ptr::null_mut();
    // SAFETY: the function has the type that is asked for.
    tried(unsafe { faiss_CustomIOReader_new(&mut reader, Some(give)) })?;
    // SAFETY: only the lifetime changes; the pointer is forgotten before this function returns.
    let lasting: *mut (dyn Source + 'static) = unsafe { std::mem::transmute(ptr::from_mut(source)) };
    SOURCE.set(Some(lasting));
    let mut index = ptr::null_mut();
    // SAFETY: the reader lives and is a reader as FAISS knows them.
    let code = unsafe { faiss_read_index_custom(reader.cast(), 0, &mut index) };
    SOURCE.set(None);
    let outcome = tried(code);
    // SAFETY: made above, freed once.
    unsafe { faiss_CustomIOReader_free(reader) };
    outcome.map(|()| index)
}

/// Called by FAISS with `items` items of `size` bytes to write; returns how many were taken.
unsafe extern "C" fn take(bytes: *const c_void, size: usize, items: usize) -> usize {
    let (Some(sink), Some(length)) = (SINK.get(), size.checked_mul(items)) else { return 0 };
    if length == 0 {
        return items;
    }
    // SAFETY: FAISS hands over that many bytes, and `write` of this thread keeps the sink while it calls FAISS.
    let taken = unsafe { (*sink).take(slice::from_raw_parts(bytes.cast(), length)) };
    if taken { items } else { 0 }
}

/// Called by FAISS for `items` items of `size` bytes; returns how many were given.
unsafe extern "C" fn give(bytes: *mut c_void, size: usize, items: usize) -> usize {
    let (Some(source), Some(length)) = (SOURCE.get(), size.checked_mul(items)) else { return 0 };
    if length == 0 {
        return items;
    }
    // SAFETY: FAISS has allocated that many bytes; they are zeroed, since a slice must not be uninitialised. `read` of this
    // thread keeps the source while it calls FAISS.
    let given = unsafe {
        ptr::write_bytes(bytes.cast::<u8>(), 0, length);
        (*source).give(slice::from_raw_parts_mut(bytes.cast(), length))
    };
    if given { items } else { 0 }
}
