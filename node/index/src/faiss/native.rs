//! The only calls into the FAISS library.
//!
//! The crate `faiss` makes indexes and frees them. Searches, filters and streams call its C interface directly, because
//! the crate's searches of a made-to-order index need exclusive access, its bitmap filter keeps a pointer to memory that
//! it does not hold, its parameters leak the filter, and it reads and writes files only.
//!
//! FAISS' documentation allows concurrent searches of an index that nobody changes; so a search takes `&self` and a change
//! `&mut self`. No call uses more threads than the caller's.
#![allow(unsafe_code)]

mod stream;

use std::marker::PhantomData;
use std::os::raw::c_int;
use std::ptr;

use ::faiss::index::autotune::ParameterSpace;
use ::faiss::index::{FromInnerPtr, IndexImpl};
use ::faiss::{Index, MetricType, index_factory};
use faiss_sys::{
    FaissIDSelector, FaissIDSelectorBitmap, FaissSearchParameters, faiss_IDSelectorBitmap_free,
    faiss_IDSelectorBitmap_new, faiss_Index_search_with_params, faiss_SearchParameters_free,
    faiss_SearchParameters_new, faiss_SearchParametersIVF_free, faiss_SearchParametersIVF_new_with,
};

pub(super) use stream::{Sink, Source};

unsafe extern "C" {
    /// Sets the number of threads of the parallel sections that the calling thread starts from now on.
    safe fn omp_set_num_threads(count: c_int);
}

/// What FAISS said, without the places in its source.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) String);

/// An index of FAISS. The rows in it have the numbers of the order in which they were added.
#[derive(Debug)]
pub(super) struct Native(IndexImpl);

/// How one search differs from the index's settings.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Parameters<'m> {
    /// Lists to look into; only for an index that has lists.
    pub(super) lists: Option<usize>,
    /// Rows that may be found: bit `i % 8` of byte `i / 8` for row i. All rows without it.
    pub(super) mask: Option<&'m [u8]>,
}

impl Native {
    /// An empty index. FAISS kills the process over some factory strings: only those that `Factory` writes may come here.
    pub(super) fn new(dimension: usize, factory: &str, metric: MetricType) -> Result<Native, Refusal> {
        single_threaded();
        let dimension = u32::try_from(dimension).expect("rows have at most 65,536 values");
        Ok(Native(index_factory(dimension, factory, metric)?))
    }

    /// Learns from rows that lie one after the other.
    pub(super) fn train(&mut self, rows: &[f32]) -> Result<(), Refusal> {
        single_threaded();
        Ok(self.0.train(rows)?)
    }

    /// Appends rows that lie one after the other.
    pub(super) fn add(&mut self, rows: &[f32]) -> Result<(), Refusal> {
        single_threaded();
        Ok(self.0.add(rows)?)
    }

    /// Changes a setting that searches read.
    pub(super) fn set(&mut self, name: &str, value: u32) -> Result<(), Refusal> {
        Ok(ParameterSpace::new()?.set_index_parameter(&self.0, name, value)?)
    }

    /// Number of rows.
    pub(super) fn len(&self) -> u64 {
        self.0.ntotal()
    }

    /// Values of each row.
    pub(super) fn dimension(&self) -> usize {
        self.0.d() as usize
    }

    /// What the index compares by.
    pub(super) fn metric(&self) -> MetricType {
        self.0.metric_type()
    }

    /// The rows that seem nearest to `query`, the nearest first; fewer than `count` where it finds no more.
    pub(super) fn search(
        &self,
        query: &[f32],
        count: usize,
        parameters: Parameters<'_>,
    ) -> Result<Vec<u32>, Refusal> {
        assert_eq!(query.len(), self.dimension(), "a query of another dimension");
        single_threaded();
        let mut distances = vec![0.0f32; count];
        let mut labels = vec![-1i64; count];
        let selector = parameters.mask.map(Selector::new).transpose()?;
        let parameters = NativeParameters::new(selector.as_ref(), parameters.lists)?;
        // SAFETY: the index lives and nobody changes it; the query has its dimension; `distances` and `labels` have
        // room for `count` results of one query; the parameters and what they point to live until the call returns.
        tried(unsafe {
            faiss_Index_search_with_params(
                self.0.inner_ptr(),
                1,
                query.as_ptr(),
                count as i64,
                parameters.native,
                distances.as_mut_ptr(),
                labels.as_mut_ptr(),
            )
        })?;
        // -1 stands for "no more".
        Ok(labels.into_iter().filter_map(|label| u32::try_from(label).ok()).collect())
    }

    /// Writes the index to `sink`. What `sink` could not take is an error, and `sink` knows which.
    pub(super) fn write(&self, sink: &mut dyn Sink) -> Result<(), Refusal> {
        single_threaded();
        stream::write(self.0.inner_ptr(), sink)
    }

    /// Reads an index from `source`, whose bytes must be those that an index was written as.
    pub(super) fn read(source: &mut dyn Source) -> Result<Native, Refusal> {
        single_threaded();
        let index = stream::read(source)?;
        // SAFETY: FAISS has just made this index, and nobody else has it.
        Ok(Native(unsafe { IndexImpl::from_inner_ptr(index) }))
    }
}

/// One thread for each call: the caller's pool spreads the work.
fn single_threaded() {
    omp_set_num_threads(1);
}

/// A filter over the bits of a mask, which it borrows.
struct Selector<'m> {
    native: *mut FaissIDSelectorBitmap,
    _mask: &'m [u8],
}

impl Selector<'_> {
    fn new(mask: &[u8]) -> Result<Selector<'_>, Refusal> {
        let mut native = ptr::null_mut();
        // SAFETY: `mask` has `mask.len()` bytes and outlives the selector, which keeps a pointer to it.
        tried(unsafe { faiss_IDSelectorBitmap_new(&mut native, mask.len(), mask.as_ptr()) })?;
        Ok(Selector { native, _mask: mask })
    }
}

impl Drop for Selector<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once.
        unsafe { faiss_IDSelectorBitmap_free(self.native) };
    }
}

/// Parameters of one search as FAISS takes them. They point to the selector.
struct NativeParameters<'s> {
    /// Null for those of the index.
    native: *mut FaissSearchParameters,
    of_lists: bool,
    selector: PhantomData<&'s Selector<'s>>,
}

impl<'s> NativeParameters<'s> {
    fn new(
        selector: Option<&'s Selector<'s>>,
        lists: Option<usize>,
    ) -> Result<NativeParameters<'s>, Refusal> {
        let mut native = ptr::null_mut();
        let filter: *mut FaissIDSelector =
            selector.map_or(ptr::null_mut(), |selector| selector.native.cast());
        if let Some(lists) = lists {
            // SAFETY: the filter is none, or outlives the parameters, which keep a pointer to it. 0 stands for no limit.
            tried(unsafe { faiss_SearchParametersIVF_new_with(&mut native, filter, lists, 0) })?;
        } else if selector.is_some() {
            // SAFETY: the filter outlives the parameters, which keep a pointer to it.
            tried(unsafe { faiss_SearchParameters_new(&mut native, filter) })?;
        }
        Ok(NativeParameters { native, of_lists: lists.is_some(), selector: PhantomData })
    }
}

impl Drop for NativeParameters<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `new` as what they are freed as, freed once; null is freed by doing nothing. They do not own the
        // filter.
        unsafe {
            if self.of_lists {
                faiss_SearchParametersIVF_free(self.native);
            } else {
                faiss_SearchParameters_free(self.native);
            }
        }
    }
}

/// The outcome of a call of the C interface.
fn tried(code: c_int) -> Result<(), Refusal> {
    if code == 0 {
        return Ok(());
    }
    // SAFETY: a call of this thread has just failed; the text lives until the next one fails, and is copied before.
    let text = unsafe {
        let text = faiss_sys::faiss_get_last_error();
        (!text.is_null()).then(|| std::ffi::CStr::from_ptr(text).to_string_lossy().into_owned())
    };
    Err(Refusal(scrubbed(&text.unwrap_or_default())))
}

impl From<::faiss::error::Error> for Refusal {
    fn from(error: ::faiss::error::Error) -> Refusal {
        match error {
            ::faiss::error::Error::Native(native) => Refusal(scrubbed(native.msg())),
            other => Refusal(other.to_string()),
        }
    }
}

/// The reason in an exception's text. It reads `Error in <function> at <path>:<line>: Error: '<condition>' failed: <reason>`,
/// or ends with a reason without a condition, or has no reason.
fn scrubbed(text: &str) -> String {
    let told = text.split_once(" at ").map_or(text, |(_, place_and_reason)| {
        let mut parts = place_and_reason.splitn(3, ':');
        parts.nth(2).unwrap_or_default()
    });
    let told = told.split_once("' failed: ").map_or(told, |(_, reason)| reason);
    let told = told.split_once("' failed").map_or(told, |(_, reason)| reason).trim();
    // What is not a sentence of FAISS, such as the name of an exception, tells a reader nothing.
    match told {
        "" | "std::exception" | "std::bad_alloc" => "it gave no reason".to_owned(),
        told if told.contains(['/', '\n']) => "it gave no reason".to_owned(),
        told => told.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_the_source_of_faiss_are_not_told() {
        let texts = [
            (
                "Error in void f(int) at /a/b.cpp:917: could not parse index string x: y",
                "could not parse index string x: y",
            ),
            (
                "Error in void f() at /a/b.cpp:7: Error: 'd % M == 0' failed: no multiple of 3",
                "no multiple of 3",
            ),
            ("Error in void f() at /a/b.cpp:7: Error: 'k > 0' failed", "it gave no reason"),
            ("std::exception", "it gave no reason"),
            ("cannot open /a/b", "it gave no reason"),
        ];
        for (native, told) in texts {
            assert_eq!(scrubbed(native), told);
        }
    }

    #[test]
    fn a_refusal_of_faiss_is_an_error_without_its_place() {
        let refusal = Native::new(16, "PQ3", MetricType::L2).expect_err("16 is no multiple of 3");
        assert!(refusal.0.contains("multiple") && !refusal.0.contains(".cpp"), "{refusal:?}");
    }
}
