//! `modelfs fingerprint`: what data holds, as pandas says it of the same tables.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value};

use crate::harness::{Bench, fixtures};

/// One table as CSV, lines of JSON and Parquet, and what pandas says of its columns.
fn tables() -> PathBuf {
    fixtures().with_file_name("tables")
}

fn fingerprint(bench: &Bench, path: &Path) -> Value {
    bench.cli_json(&["fingerprint", path.to_str().expect("text")])[0].clone()
}

fn column<'a>(found: &'a Value, name: &str) -> &'a Value {
    let schema = found["schema"].as_array().expect("a schema");
    schema.iter().find(|column| column["name"] == name).unwrap_or_else(|| panic!("{name}: {found}"))
}

fn expected() -> Map<String, Value> {
    let text = fs::read_to_string(tables().join("expected.json")).expect("a fixture");
    serde_json::from_str(&text).expect("JSON")
}

/// Numbers are equal to the last digits; how many differ, exactly.
fn assert_alike(found: &Value, expected: &Value, what: &str) {
    match (found.as_f64(), expected.as_f64()) {
        (Some(found), Some(expected)) => {
            let tolerance = if what.ends_with("distinct") { 0.0 } else { 1e-12 };
            let distance = (found - expected).abs();
            assert!(distance <= tolerance * expected.abs(), "{what}: {found}, not {expected}");
        }
        _ => assert_eq!(found, expected, "{what}"),
    }
}

#[test]
fn a_table_is_summed_up_as_pandas_does_it() {
    let bench = Bench::new();
    for (file, format) in [("people.csv", "csv"), ("people.jsonl", "json-lines")] {
        let found = fingerprint(&bench, &tables().join(file));
        assert_eq!((&found["format"], &found["rows"]), (&format.into(), &240.into()), "{found}");
        let bytes = fs::read(tables().join(file)).expect("a fixture");
        assert_eq!(found["digest"], blake3::hash(&bytes).to_string(), "{file}");
        for (name, told) in expected() {
            for (what, expected) in told.as_object().expect("figures") {
                assert_alike(
                    &column(&found, &name)[what],
                    expected,
                    &format!("{file} {name} {what}"),
                );
            }
        }
        let kinds = ["integer", "integer", "number", "boolean", "text", "date", "time"];
        for (name, kind) in
            ["id", "age", "income", "churned", "name", "since", "seen"].iter().zip(kinds)
        {
            assert_eq!(column(&found, name)["type"], kind, "{file} {name}");
        }
        assert!(!found.to_string().contains("Ann"), "no text of a table is told: {found}");
    }
}

#[test]
fn parquet_tells_its_columns_whoever_wrote_it() {
    let bench = Bench::new();
    for file in ["arrow.parquet", "polars.parquet"] {
        let found = fingerprint(&bench, &tables().join(file));
        assert_eq!((&found["format"], &found["rows"]), (&"parquet".into(), &240.into()), "{found}");
        for (name, told) in expected() {
            let column = column(&found, &name);
            assert_eq!(column["missing"], told["missing"], "{file} {name}");
            if ["id", "age", "income"].contains(&name.as_str()) {
                assert_alike(&column["min"], &told["min"], &format!("{file} {name} min"));
                assert_alike(&column["max"], &told["max"], &format!("{file} {name} max"));
            }
        }
        let kinds = ["integer", "integer", "number", "boolean", "text", "date", "time"];
        for (name, kind) in
            ["id", "age", "income", "churned", "name", "since", "seen"].iter().zip(kinds)
        {
            assert_eq!(column(&found, name)["type"], kind, "{file} {name}");
        }
    }
    let found = fingerprint(&bench, &tables().join("arrow.parquet"));
    let others = [
        ("tags", "list"),
        ("place", "object"),
        ("price", "number"),
        ("raw", "bytes"),
        ("half", "number"),
    ];
    for (name, kind) in others {
        assert_eq!(column(&found, name)["type"], kind, "{name}");
    }
    assert_eq!(column(&found, "half")["max"], 0.5);
}

#[test]
fn the_command_line_tells_data_or_what_is_wrong_with_it() {
    let bench = Bench::new();
    bench.write("set/a.csv", "x,y\n1,2\n");
    bench.write("set/b.csv", "x,y\n3,\n");
    let shown = bench.cli(&["fingerprint", "set", "set/a.csv"]).ok();
    shown.says("2 rows, 2 columns").says("1 row, 2 columns").says("COLUMN  TYPE");
    // As `to_csv` writes it unless told otherwise: the first column has no name.
    bench.write("pandas.csv", ",a\n0,5\n1,6\n");
    bench.write("bare.csv", "5,1\n6,2\n");
    bench
        .cli(&["fingerprint", "pandas.csv"])
        .ok()
        .says("2 rows, 2 columns")
        .says("column 1  integer");
    bench.cli(&["fingerprint", "bare.csv"]).ok().says("its first record is counted as a row");
    let many: String = (0..3_000).map(|number| format!("{number}\n")).collect();
    bench.write("many.csv", format!("id\n{many}"));
    bench.cli(&["fingerprint", "many.csv"]).ok().says(" ~").says("2999");
    assert_eq!(
        column(&fingerprint(&bench, &bench.root.join("many.csv")), "id")["distinct_estimated"],
        true
    );
    let digest = fingerprint(&bench, &bench.root.join("set"))["digest"].clone();
    let line = bench.cli(&["fingerprint", "--digest", "set"]).ok();
    assert_eq!(line.stdout, format!("{}\n", digest.as_str().expect("text")));
    bench.cli(&["fingerprint"]).exits(2);
    bench.cli(&["fingerprint", "none"]).exits(4).says("cannot find `none`");
}

#[test]
fn a_line_of_many_values_takes_little_memory() {
    let bench = Bench::new();
    let values = vec!["{\"\":0}"; 2 << 20].join(",");
    let path = bench.write("deep.jsonl", format!("{{\"a\":[{values}],\"b\":1}}\n"));
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -v 1000000 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_modelfs")]);
    let output = shell.arg("fingerprint").arg(&path).output().expect("a shell");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 row, 2 columns"), "{output:?}");
}
