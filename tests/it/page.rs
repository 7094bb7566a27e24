//! The page of a diff, and plots, as a browser shows them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;

use crate::harness::{Bench, Output, bounded, require_program};

/// A name that would be a script if it were more than text.
const HOSTILE: &str = "</td><script>document.body.remove()</script>\"'&";

/// Colours of the ground, of columns, bars and lines, and of what stands out.
const LIGHT: [[u8; 3]; 3] = [[255; 3], [0x2f, 0x6b, 0xd8], [0xc2, 0x57, 0x0c]];
const DARK: [[u8; 3]; 3] = [[0x14, 0x18, 0x1f], [0x6e, 0xa8, 0xff], [0xff, 0xa6, 0x57]];

/// A store with three versions of a model whose tensors, files, metrics and messages have hostile names.
fn history() -> Bench {
    let bench = Bench::new();
    let name = serde_json::Value::from(HOSTILE);
    for (number, auc) in [(1, "0.9"), (2, "0.93"), (3, "0.95")] {
        let weights: Vec<u8> =
            (0..4_000_u32).flat_map(|n| (n as f32 * number as f32).to_le_bytes()).collect();
        let header = format!(
            r#"{{"layer.0.weight":{{"dtype":"F32","shape":[2000],"data_offsets":[0,8000]}},
                {name}:{{"dtype":"F32","shape":[2000],"data_offsets":[8000,16000]}}}}"#
        );
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header.as_bytes());
        file.extend_from_slice(&weights);
        bench.write(&format!("{number}/model.safetensors"), file);
        bench.write(&format!("{number}/<b>{number}.txt"), "x");
        let (path, metric) = (bench.root.join(number.to_string()), format!("auc={auc}"));
        let hostile = format!("{HOSTILE}={number}");
        let arguments = ["snapshot", "m", path.to_str().expect("text"), "-m", HOSTILE];
        let more = ["--metric", &metric, "--metric", &hostile, "--param", &hostile];
        bench.cli(&[&arguments[..], &more].concat()).ok();
    }
    bench.cli(&["promote", "m/v2", "prod"]).ok();
    bench
}

/// Chromium without a window, on a page; `options` say what it does with it.
fn chromium(bench: &Bench, page: &Path, options: &[&str]) -> Output {
    require_program("chromium", "chromium");
    let profile = tempfile::tempdir().expect("a directory");
    let mut command = bounded("chromium");
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--hide-scrollbars", "--window-size=1200,1600"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(options)
        .arg(format!("file://{}", page.display()))
        .current_dir(&bench.root);
    Output::of(&mut command).ok()
}

/// How many pixels have each colour where a browser draws a page, 1,200 by 1,600 of them.
fn colours(bench: &Bench, page: &Path, options: &[&str]) -> HashMap<[u8; 3], usize> {
    let picture = bench.root.join("page.png");
    drop(fs::remove_file(&picture));
    let shot = format!("--screenshot={}", picture.display());
    chromium(bench, page, &[&[shot.as_str()], options].concat());
    let file = BufReader::new(File::open(&picture).expect("a picture"));
    let mut reader = png::Decoder::new(file).read_info().expect("a picture's header");
    let mut bytes = vec![0; reader.output_buffer_size().expect("a small picture")];
    let info = reader.next_frame(&mut bytes).expect("a picture's pixels");
    assert_eq!((info.width, info.height, info.bit_depth), (1_200, 1_600, png::BitDepth::Eight));
    let mut found = HashMap::new();
    for pixel in bytes.chunks_exact(info.color_type.samples()) {
        *found.entry([pixel[0], pixel[1], pixel[2]]).or_default() += 1;
    }
    found
}

#[test]
fn a_browser_shows_the_page_of_a_diff() {
    let bench = history();
    let page = bench.root.join("page.html");
    bench.cli(&["diff", "m/v1", "m/v3", "--html", "page.html"]).ok().says("page.html");
    let text = fs::read_to_string(&page).expect("a page");
    let links = text.matches("href=").count();
    assert_eq!(links, text.matches("href=\"#part-").count(), "links lead within the page");
    assert_eq!(text.matches("://").count(), text.matches("http://www.w3.org/2000/svg").count());
    assert!(!text.contains("src=") && !text.contains("url("), "nothing is loaded");

    let shown = chromium(&bench, &page, &["--dump-dom"]).stdout;
    assert!(shown.contains("<title>m/v1 → m/v3</title>"), "{shown}");
    assert!(!shown.contains("<script") && !shown.contains("<b>"), "{shown}");
    assert_eq!(shown.matches("<svg").count(), 3, "two metrics and the layers: {shown}");
    assert_eq!(shown.matches("class=\"column\"").count(), 2, "{shown}");
    assert!(shown.contains("layer.0.weight") && shown.contains("&lt;script&gt;"), "{shown}");

    let dark = ["--blink-settings=preferredColorScheme=0"];
    for (options, [ground, bar, mark]) in [(&[][..], LIGHT), (&dark, DARK)] {
        let found = colours(&bench, &page, options);
        let count = |colour| found.get(&colour).copied().unwrap_or(0);
        let counts = (count(ground), count(bar), count(mark));
        let is_drawn = 1_000_000 < counts.0 && 5_000 < counts.1 && 50 < counts.2;
        assert!(is_drawn, "{options:?}: {counts:?} pixels of ground, bars and marks");
    }
    bench.cli(&["diff", "m/v1", "m/v3", "--html", "no/such/page.html"]).exits(4).says("page.html");
}

#[test]
fn a_log_has_metrics_and_a_plot() {
    let bench = history();
    let log = bench.cli(&["log", "m"]).ok();
    let head = log.stdout.lines().nth(1).expect("headings").to_owned();
    assert!(head.contains("auc") && head.contains("<script>"), "{head}");
    log.says("0.93").says("prod");
    let one =
        bench.cli(&["log", "m", "--metric", "auc", "--last", "2"]).ok().says("and 1 before these");
    assert!(!one.stdout.contains("0.9 "), "{one:#?}");
    let json = bench.cli_json(&["log", "m", "--metric", "auc"]);
    let metrics: Vec<_> =
        json["versions"].as_array().unwrap().iter().map(|it| &it["metrics"]).collect();
    let expected = [0.9, 0.93, 0.95].map(|auc| serde_json::json!({"auc": auc}));
    assert_eq!(metrics, expected.iter().collect::<Vec<_>>());
    bench.cli(&["log", "m", "--metric", "nope"]).exits(4).says("one of").says("auc");
    bench.cli(&["log", "other"]).exits(4);
    bench.cli(&["log", "m", "--last", "0"]).exits(2).says("`0` is no count");
    bench.cli(&["log", "m", "--plot", "auc", "--json"]).exits(2);

    let svg = bench.cli(&["log", "m", "--plot", "auc"]).ok().stdout;
    assert_eq!((svg.matches("<circle").count(), svg.matches(">prod<").count()), (3, 1), "{svg}");
    let plot = bench.write("auc.svg", &svg);
    let shown = chromium(&bench, &plot, &["--dump-dom"]).stdout;
    assert!(shown.contains("<path class=\"line\""), "a picture by itself: {shown}");
    let found = colours(&bench, &plot, &[]);
    let [line, mark] = [LIGHT[1], LIGHT[2]].map(|colour| found.get(&colour).copied());
    assert!(Some(500) < line && Some(50) < mark, "{line:?} and {mark:?} pixels");
    let hostile = bench.cli(&["log", "m", "--plot", HOSTILE]).ok().stdout;
    assert!(!hostile.contains("<script"), "{hostile}");
}
