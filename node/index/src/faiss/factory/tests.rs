use proptest::prelude::*;

use super::*;
use crate::faiss::FaissIndex;

const METRICS: [Metric; 3] = [Metric::Cosine, Metric::L2, Metric::Dot];

fn native(text: &str, dimension: usize, metric: Metric) -> Result<String, String> {
    Factory::parse(text, dimension, metric).map(|factory| factory.native()).map_err(|error| error.to_string())
}

#[test]
fn strings_are_written_anew_for_faiss() {
    let pairs = [
        ("Flat", "Flat"),
        ("Flat,RFlat", "Flat"),
        ("SQ8", "SQ8"),
        ("SQfp16", "SQfp16"),
        ("PQ16", "PQ16x8np"),
        ("PQ16x4", "PQ16x4np"),
        ("PQ16x10np", "PQ16x10np"),
        ("PQ32x4fs,RFlat", "PQ32x4fs"),
        ("RR,RaBitQ", "RR64,RaBitQ"),
        ("RR32,RaBitQ", "RR32,RaBitQ"),
        ("PCA32,Flat", "PCA32,Flat"),
        ("PCAR32,SQ8,RFlat", "PCAR32,SQ8"),
        ("OPQ8,PQ8", "OPQ8_64,PQ8x8np"),
        ("OPQ8_32,IVF16,PQ8x4fs", "OPQ8_32,IVF16,PQ8x4fs"),
        ("PCA32,RR,Flat", "PCA32,RR32,Flat"),
        ("HNSW", "HNSW32,Flat"),
        ("HNSW16", "HNSW16,Flat"),
        ("HNSW16,SQ8", "HNSW16,SQ8"),
        ("HNSW16_SQ8", "HNSW16,SQ8"),
        ("HNSW,SQ4", "HNSW32,SQ4"),
        ("IVF1024,Flat", "IVF1024,Flat"),
        ("IVF1k,Flat", "IVF1024,Flat"),
        ("IVF1M,RaBitQ", "IVF1048576,RaBitQ"),
        ("IVF100_HNSW,SQ6", "IVF100_HNSW32,SQ6"),
        ("IVF100_HNSW16,PQ8", "IVF100_HNSW16,PQ8x8np"),
    ];
    for (text, expected) in pairs {
        for metric in METRICS {
            assert_eq!(native(text, 64, metric).as_deref(), Ok(expected), "{text}");
        }
    }
}

#[test]
fn a_refusal_says_what_is_wrong_and_what_is_allowed() {
    let refused = [
        ("", "is unknown"),
        ("flat", "RaBitQ"),
        ("SH16", "\"SH16\" is unknown"),
        ("LSH", "is unknown"),
        ("NSG32", "is unknown"),
        ("IDMap,Flat", "not followed by what it needs"),
        ("Flat,IDMap", "not followed by what it needs"),
        ("IMI2x8,Flat", "not followed"),
        ("RQ4x4", "is unknown"),
        ("SQ8_direct", "is unknown"),
        ("PCAW32,Flat", "not followed"),
        ("PCA65,Flat", "a number from 1 to 64"),
        ("OPQ3,Flat", "no multiple of 3"),
        ("OPQ4_30,Flat", "no multiple of 4"),
        ("OPQ0,Flat", "a number from 1 to 64"),
        ("RR,RR,RR,RR,Flat", "more than 3 transforms"),
        ("RR", "an index is missing"),
        ("RFlat", "is unknown"),
        ("PQ0", "a number from 1 to 64"),
        ("PQ7", "no multiple of 7"),
        ("PQ8x0", "a number from 4 to 12"),
        ("PQ8x13", "a number from 4 to 12"),
        ("PQ8x4fs_7", "a number from 4 to 12"),
        ("IVF4,PQ8x4fsr", "use PQ<blocks>x4fs"),
        ("HNSW0", "a number from 4 to 128"),
        ("HNSW2000000000", "a number from 4 to 128"),
        ("HNSW16,PQ8x12", "a number from 4 to 8"),
        ("HNSW16,PQ8x4fs", "a graph needs Flat"),
        ("HNSW16,8+PQ4", "is unknown"),
        ("IVF0,Flat", "a number from 1 to 1048576"),
        ("IVF2M,Flat", "a number from 1 to 1"),
        ("IVF,Flat", "a number from 1"),
        ("IVF4(Index9),Flat", "a number from 1"),
        ("IVF4_NSG8,Flat", "is unknown"),
        ("IVF99999999999999999999,Flat", "a number from 1"),
        ("IVF4", "is unknown"),
        ("IVF4,", "is unknown"),
        ("IVF+4,Flat", "a number from 1"),
        ("Flat\0", "is unknown"),
    ];
    for (text, expected) in refused {
        for metric in METRICS {
            let error = native(text, 64, metric).expect_err(text);
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }
    let long = native(&"Flat,".repeat(50), 64, Metric::L2).expect_err("too long");
    assert!(long.contains("more than 128 bytes") && long.len() < 200, "{long}");
    let wide = native("PCA64,Flat", 5_000, Metric::L2).expect_err("too wide");
    assert!(wide.contains("at most 4096 values"), "{wide}");
    for (text, dimension) in [("PQ1x12", 65_536), ("HNSW16,PQ512", 1_024)] {
        let large = native(text, dimension, Metric::L2).expect_err("too large");
        assert!(large.contains("MiB, more than 64"), "{large}");
    }
    let dot = native("HNSW16,PQ8", 64, Metric::Dot).expect_err("compares by distance");
    assert!(dot.contains("dot product"), "{dot}");
}

#[test]
fn the_default_can_be_trained_with_the_rows_it_was_made_for() {
    for metric in METRICS {
        for dimension in [1, 2, 15, 16, 17, 384, 65_536] {
            for rows in [39, 40, 1_000, 9_999, 10_000, 62_666, 1_000_000, u32::MAX as usize] {
                let factory = Factory::trained(rows, dimension, metric);
                assert!(factory.rows_needed() <= rows, "{factory} for {rows}");
                assert_eq!(Factory::parse(&factory.to_string(), dimension, metric), Ok(factory.clone()));
                let EffortRange::Lists(range) = factory.effort(rows) else { panic!("{factory} has lists") };
                assert!(factory.default_effort() <= 16.max(*range.end()));
            }
        }
    }
    let factory = |rows| Factory::trained(rows, 384, Metric::Cosine).to_string();
    assert_eq!(factory(5_000), "IVF128,Flat");
    assert_eq!(factory(62_666), "IVF1001,PQ192x4fs");
}

#[test]
fn rows_needed_follow_from_what_is_trained() {
    let needed = |text| Factory::parse(text, 64, Metric::L2).expect(text).rows_needed();
    let expected = [
        ("Flat", 1),
        ("HNSW16,SQ8", 1),
        ("RR,RaBitQ", 1),
        ("PCA8,Flat", 64),
        ("PQ8x4", 624),
        ("PQ8x4fs", 624),
        ("IVF10,Flat", 390),
        ("IVF10,PQ8x4fs", 624),
        ("IVF100,PQ8x4fs", 3_900),
        ("PQ8", 9_984),
        ("OPQ8,Flat", 9_984),
    ];
    for (text, rows) in expected {
        assert_eq!(needed(text), rows, "{text}");
    }
}

/// Strings that look like factory strings, most of them wrong in some number.
fn nearly_right() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        4 => (0usize..=64).prop_map(|number| number.to_string()),
        1 => prop_oneof![
            Just(String::new()),
            Just("00".to_owned()),
            Just("-1".to_owned()),
            Just("2147483648".to_owned()),
            Just("4k".to_owned()),
            Just("2x4".to_owned()),
        ],
    ];
    let word = prop::sample::select(vec![
        "Flat",
        "SQ",
        "SQfp",
        "PQ",
        "OPQ",
        "PCA",
        "PCAR",
        "RR",
        "RaBitQ",
        "HNSW",
        "IVF",
        "RFlat",
        "Refine(",
        "IDMap",
        "LSH",
        "NSG",
        "RQ",
        "Pad",
        "ITQ",
        "IMI",
        "ZnLattice",
        "Residual",
        "L2norm",
        "MinMax",
        "SH",
        "(",
    ]);
    let tail = prop::sample::select(vec![
        "", "", "", "", "x4", "x8", "x4fs", "x4fsr", "np", "_HNSW8", "_32", "_SQ8", ",Flat", ",SQ8", ")",
        "(Index0)",
    ]);
    prop::collection::vec((word, number, tail), 1..4).prop_map(|parts| {
        let parts: Vec<String> =
            parts.into_iter().map(|(word, number, tail)| format!("{word}{number}{tail}")).collect();
        parts.join(",")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_096))]

    // FAISS ends the process over some strings: that this test ends is what it shows.
    #[test]
    fn no_string_harms_faiss(
        text in prop_oneof![9 => nearly_right(), 1 => any::<String>()],
        dimension in prop::sample::select(vec![1usize, 2, 3, 16, 31, 32, 64, 384]),
        metric in prop::sample::select(METRICS.to_vec()),
    ) {
        if let Ok(factory) = Factory::parse(&text, dimension, metric) {
            // Whatever passes here must be fine with FAISS, and mean the same when it is read back.
            let made = FaissIndex::validate_factory(&text, dimension, metric);
            prop_assert!(made.is_ok(), "{text} for {dimension}: {made:?}");
            let native = factory.native();
            prop_assert_eq!(
                Factory::parse(&native, dimension, metric).map(|again| again.native()),
                Ok(native)
            );
        }
    }
}
