//! Answers of the API as text for people. Pure.

use std::fmt::Write as _;

use serde_json::Value;

/// A column's title and the field that it shows, as a JSON pointer.
type Column = (&'static str, &'static str);

const SHARDS: [Column; 9] = [
    ("NODE", "/node_id"),
    ("ZONE", "/zone"),
    ("ROLE", "/role"),
    ("IN SYNC", "/in_sync"),
    ("FLUSHED", "/flushed_lsn"),
    ("APPLIED", "/applied_lsn"),
    ("LAG", "/lag_records"),
    ("DIGEST", "/digest/content"),
    ("FAILURE", "/failure"),
];
const OTHERS: [Column; 3] =
    [("NODE", "/node_id"), ("LAST RECORD", "/last_lsn"), ("LOST RECORDS", "/lost_records")];
const BLOCKED: [Column; 3] = [("TABLE", "/table_name"), ("SHARD", "/shard"), ("BLOCKED BECAUSE", "/reason")];

/// The shards of a table: a line for each copy.
pub(super) fn shards(body: &Value) -> String {
    let mut rows = vec![
        ["SHARD", "EPOCH"].into_iter().chain(SHARDS.map(|(title, _)| title)).map(str::to_owned).collect(),
    ];
    for shard in items(body, "/shards") {
        for copy in items(shard, "/replicas") {
            let mut row = vec![cell(shard, "/shard"), cell(shard, "/epoch")];
            row.extend(SHARDS.map(|(_, field)| cell(copy, field)));
            let is_primary = shard.pointer("/primary/replica_id").is_some_and(|id| *id == copy["replica_id"]);
            if is_primary {
                row[4] = "primary".to_owned();
            } else if copy["damaged"] == true {
                row[4].push_str(", damaged");
            }
            rows.push(row);
        }
    }
    aligned(&rows)
}

/// How far a node is emptied.
pub(super) fn drain(body: &Value) -> String {
    let number = |field: &str| body[field].as_u64().unwrap_or(0);
    let state = match (body["draining"] == true, body["done"] == true) {
        (true, true) => "is drained: it may go",
        (true, false) => "is being drained",
        (false, _) => "is not being drained",
    };
    let (replicas, primaries, leaving) = (number("replicas"), number("primaries"), number("leaving"));
    let mut text = format!(
        "{} {state}; {replicas} copies to move ({primaries} primaries), {leaving} to delete",
        cell(body, "/node_id")
    );
    let blocked = table(&BLOCKED, items(body, "/blocked"));
    if !items(body, "/blocked").is_empty() {
        write!(text, "\n{blocked}").expect("a String takes every text");
    }
    text
}

/// What a forced recovery lost.
pub(super) fn loss(body: &Value) -> String {
    let (epoch, incarnation) = (cell(body, "/epoch"), cell(body, "/incarnation"));
    let last = cell(body, "/last_lsn");
    let others = table(&OTHERS, items(body, "/others"));
    format!("the shard goes on from record {last}, epoch {epoch}, incarnation {incarnation}\n{others}")
}

fn items<'b>(body: &'b Value, field: &str) -> &'b [Value] {
    body.pointer(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn table(columns: &[Column], items: &[Value]) -> String {
    let head = columns.iter().map(|(title, _)| (*title).to_owned()).collect();
    let row = |item: &Value| columns.iter().map(|(_, field)| cell(item, field)).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(items.iter().map(row)).collect();
    aligned(&rows)
}

/// A field for people; a dash when it is not there.
fn cell(item: &Value, field: &str) -> String {
    match item.pointer(field) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::Bool(true)) => "yes".to_owned(),
        Some(Value::Bool(false)) => "no".to_owned(),
        Some(Value::String(text)) if text.is_empty() => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// Columns as wide as their widest cell, two spaces between them.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn copies_are_lines_and_what_is_not_known_is_a_dash() {
        let body = json!({"shards": [{
            "shard": 12, "epoch": 3, "primary": {"replica_id": "aa", "node_id": "slave-0"},
            "replicas": [
                {"replica_id": "aa", "node_id": "slave-0", "zone": "a", "role": "full", "in_sync": true,
                    "damaged": false, "flushed_lsn": 90, "applied_lsn": 90, "lag_records": 0,
                    "digest": {"lsn": 90, "content": "0f"}},
                {"replica_id": "bb", "node_id": "slave-10", "role": "full", "in_sync": false, "damaged": true},
            ],
        }]});
        let expected = "\
SHARD  EPOCH  NODE      ZONE  ROLE           IN SYNC  FLUSHED  APPLIED  LAG  DIGEST  FAILURE
12     3      slave-0   a     primary        yes      90       90       0    0f      -
12     3      slave-10  -     full, damaged  no       -        -        -    -       -";
        assert_eq!(shards(&body), expected);
    }

    #[test]
    fn a_drain_says_what_is_left_and_why() {
        let mut body = json!({
            "node_id": "slave-1", "draining": true, "replicas": 2, "primaries": 1, "leaving": 3, "done": false,
            "blocked": [{"table_name": "t", "shard": 4, "reason": "no other node"}],
        });
        let expected = "\
slave-1 is being drained; 2 copies to move (1 primaries), 3 to delete
TABLE  SHARD  BLOCKED BECAUSE
t      4      no other node";
        assert_eq!(drain(&body), expected);
        body["blocked"] = json!([]);
        body["done"] = json!(true);
        assert!(drain(&body).starts_with("slave-1 is drained: it may go; "));
        body["draining"] = json!(false);
        assert!(drain(&body).contains("is not being drained"));
    }

    #[test]
    fn a_loss_names_what_nobody_knows() {
        let body = json!({
            "epoch": 8, "incarnation": 1, "last_lsn": 70,
            "others": [
                {"node_id": "slave-0", "reachable": false},
                {"node_id": "slave-2", "reachable": true, "last_lsn": 75, "lost_records": 5},
            ],
        });
        let expected = "\
the shard goes on from record 70, epoch 8, incarnation 1
NODE     LAST RECORD  LOST RECORDS
slave-0  -            -
slave-2  75           5";
        assert_eq!(loss(&body), expected);
    }
}
