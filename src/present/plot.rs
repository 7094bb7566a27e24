//! Plots as SVG: a line over versions, columns over layers.
//!
//! Own code, of which there is little: crates that plot paint colours into the picture, and these follow
//! the reader's light or dark. A picture stands in a page or alone; it has no scripts, and every name in
//! it is text.

use super::figures::figure;
use super::html::escaped;

/// Units of a picture, which scales to the room there is.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 240.0;
/// Room for the labels of the axes and the title.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 32.0;
/// Lines across the picture, about.
const TICKS: f64 = 4.0;
/// Room that a letter takes, about, and what is free between two labels.
const LETTER: f64 = 7.0;
const BETWEEN: f64 = 14.0;
/// Letters of a label.
const LETTERS_MAX: usize = 12;

/// Colours and strokes, by the reader's choice; a page has it once, and a picture that stands alone.
pub(super) const STYLE: &str = "\
.plot{--ink:#1c2430;--faint:#5d6b7e;--rule:#dfe4ea;--line:#2f6bd8;--mark:#c2570c;--ground:#fff;\
font:12px system-ui,sans-serif;background:var(--ground)}\
@media (prefers-color-scheme:dark){.plot{--ink:#e6eaf0;--faint:#9aa7b8;--rule:#303845;--line:#6ea8ff;\
--mark:#ffa657;--ground:#14181f}}\
.plot text{fill:var(--faint)}.plot .title{fill:var(--ink);font-weight:600;font-size:14px}\
.plot .rule{stroke:var(--rule)}.plot .line{fill:none;stroke:var(--line);stroke-width:2}\
.plot .dot,.plot .column{fill:var(--line)}.plot .mark{fill:var(--mark)}.plot .name{fill:var(--mark)}";

/// A place on a line.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Below the axis: `v7`.
    pub label: String,
    /// `None` where there is no number: the line has a gap.
    pub value: Option<f64>,
    /// Above a point that stands out: `prod`.
    pub mark: Option<String>,
}

/// A column.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub label: String,
    pub value: f64,
}

/// A line over points at even distances.
pub fn line(title: &str, points: &[Point]) -> String {
    let values: Vec<f64> = points.iter().filter_map(|point| point.value).collect();
    let scale = Scale::around(&values);
    let mut picture = Picture::new(title);
    picture.rules(&scale);
    let step = (WIDTH - LEFT - RIGHT) / points.len().saturating_sub(1).max(1) as f64;
    let x = |index: usize| LEFT + step * index as f64;
    picture.labels(points.iter().map(|point| point.label.as_str()), x);
    let mut path = String::new();
    let mut pen_is_down = false;
    for (index, point) in points.iter().enumerate() {
        let Some(value) = point.value else {
            pen_is_down = false;
            continue;
        };
        let verb = if pen_is_down { 'L' } else { 'M' };
        path += &format!("{verb}{:.1} {:.1}", x(index), scale.y(value));
        pen_is_down = true;
    }
    picture.put(&format!("<path class=\"line\" d=\"{path}\"/>"));
    let (mut side, mut was_marked) = (Side::Above, false);
    for (index, point) in points.iter().enumerate() {
        // Names of neighbours stand on different sides, or they would run into each other.
        side = match &point.mark {
            Some(_) if was_marked && side == Side::Above => Side::Below,
            _ => Side::Above,
        };
        was_marked = point.mark.is_some();
        if let Some(value) = point.value {
            picture.point((x(index), scale.y(value)), value, point, side);
        }
    }
    picture.finish()
}

/// Columns beside each other, from zero.
pub fn columns(title: &str, columns: &[Column]) -> String {
    let values: Vec<f64> = columns.iter().map(|column| column.value).chain([0.0]).collect();
    let scale = Scale::around(&values);
    let mut picture = Picture::new(title);
    picture.rules(&scale);
    let room = (WIDTH - LEFT - RIGHT) / columns.len().max(1) as f64;
    let width = (room * 0.8).min(48.0);
    let x = |index: usize| LEFT + room * (index as f64 + 0.5);
    picture.labels(columns.iter().map(|column| column.label.as_str()), x);
    for (index, Column { label, value }) in columns.iter().enumerate() {
        let (top, bottom) = (scale.y(*value), scale.y(0.0));
        picture.put(&format!(
            "<rect class=\"column\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{:.1}\">\
             <title>{}: {}</title></rect>",
            x(index) - width / 2.0,
            (bottom - top).max(0.5),
            escaped(label),
            figure(*value),
        ));
    }
    picture.finish()
}

/// Where the name of a point stands.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Above,
    Below,
}

/// From numbers to heights.
struct Scale {
    low: f64,
    high: f64,
    step: f64,
}

impl Scale {
    /// One that all values fit into, with ends and steps of few digits.
    fn around(values: &[f64]) -> Self {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
        // Numbers that are far apart have no difference, but their parts have.
        let rough = match low < high {
            true => (high / TICKS - low / TICKS).max(f64::MIN_POSITIVE),
            false => high.abs().max(1.0) * 0.1 / TICKS,
        };
        let magnitude = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|it| rough <= it * magnitude);
        let step = step.unwrap_or(10.0) * magnitude;
        let low = ((low / step).floor() * step).max(f64::MIN);
        let mut high = ((high / step).ceil() * step).min(f64::MAX);
        if high <= low {
            high = low + step;
        }
        Self { low, high, step }
    }

    fn y(&self, value: f64) -> f64 {
        let share = (value / 2.0 - self.low / 2.0) / (self.high / 2.0 - self.low / 2.0);
        let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
        TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - share)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        /// What the last bits of a multiple may be off.
        const SLACK: f64 = 1e-9;
        let step = self.step;
        // At the end of all numbers an end is no multiple of the step.
        let (first, last) = (self.low / step - SLACK, self.high / step + SLACK);
        let first = first.ceil();
        let count = (last.floor() - first).clamp(0.0, 20.0);
        // A count of at most 20.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let count = count as u32;
        (0..=count).map(move |index| (first + f64::from(index)) * step)
    }
}

/// A picture that grows.
struct Picture {
    text: String,
}

impl Picture {
    fn new(title: &str) -> Self {
        let title = escaped(title);
        Self {
            text: format!(
                "<svg class=\"plot\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
                 role=\"img\" aria-label=\"{title}\"><text class=\"title\" x=\"{LEFT}\" y=\"20\">{title}</text>"
            ),
        }
    }

    fn put(&mut self, element: &str) {
        self.text.push_str(element);
    }

    fn rules(&mut self, scale: &Scale) {
        for tick in scale.ticks() {
            let y = scale.y(tick);
            self.put(&format!(
                "<line class=\"rule\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                y + 4.0,
                figure(tick),
            ));
        }
    }

    /// Labels below the axis, as many as have room; the last one always.
    fn labels<'a>(&mut self, labels: impl Iterator<Item = &'a str>, x: impl Fn(usize) -> f64) {
        let labels: Vec<String> = labels.map(short).collect();
        let count = labels.len();
        let letters = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
        let room = LETTER * letters as f64 + BETWEEN;
        let step = if count < 2 { room } else { x(1) - x(0) };
        let has_room = |every: &usize| room <= step * *every as f64;
        let every = (1..=count).find(has_room).unwrap_or(count.max(1));
        for (index, label) in labels.iter().enumerate() {
            if !(count - 1 - index).is_multiple_of(every) {
                continue;
            }
            self.put(&format!(
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                x(index),
                HEIGHT - 10.0,
                escaped(label),
            ));
        }
    }

    fn point(&mut self, (x, y): (f64, f64), value: f64, point: &Point, side: Side) {
        let (class, radius) = if point.mark.is_some() { ("mark", 5.0) } else { ("dot", 3.0) };
        let label = escaped(&point.label);
        self.put(&format!(
            "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"><title>{label}: {}</title>\
             </circle>",
            figure(value),
        ));
        if let Some(mark) = &point.mark {
            // At the edges the text would leave the picture.
            let anchor = if x < LEFT + 40.0 {
                "start"
            } else if WIDTH - RIGHT - 40.0 < x {
                "end"
            } else {
                "middle"
            };
            let y = if side == Side::Below { y + 19.0 } else { (y - 9.0).max(TOP - 6.0) };
            self.put(&format!(
                "<text class=\"name\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
                escaped(&short(mark)),
            ));
        }
    }

    fn finish(mut self) -> String {
        self.text.push_str("</svg>");
        self.text
    }
}

/// A label that has room: of a long one the end, which tells it from others, from a `.` on.
fn short(label: &str) -> String {
    let count = label.chars().count();
    if count <= LETTERS_MAX {
        return label.to_owned();
    }
    let rest: String = label.chars().skip(count - LETTERS_MAX).collect();
    match rest.split_once('.') {
        Some((_, end)) if !end.is_empty() => end.to_owned(),
        _ => format!("…{}", rest.chars().skip(1).collect::<String>()),
    }
}

/// A picture as a file of its own.
pub fn alone(picture: &str) -> String {
    let head = picture.find('>').map_or(0, |end| end + 1);
    let (head, rest) = picture.split_at(head);
    format!("{head}<style>{STYLE}</style>{rest}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: &[Option<f64>]) -> Vec<Point> {
        let point = |(index, value): (usize, &Option<f64>)| Point {
            label: format!("v{}", index + 1),
            value: *value,
            mark: None,
        };
        values.iter().enumerate().map(point).collect()
    }

    #[test]
    fn a_scale_has_round_steps_and_holds_all_values() {
        for (values, low, high, step) in [
            (&[0.912, 0.931][..], 0.91, 0.935, 0.005),
            (&[0.0, 3.0], 0.0, 3.0, 1.0),
            (&[-7.0, 5.0], -10.0, 5.0, 5.0),
            (&[5.0], 5.0, 5.2, 0.2),
            (&[], 0.0, 1.0, 0.5),
        ] {
            let scale = Scale::around(values);
            let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
            let found = (scale.low, scale.high, scale.step);
            let is_close = close(found.0, low) && close(found.1, high) && close(found.2, step);
            assert!(is_close, "{values:?}: {found:?}");
        }
        for strange in [&[0.0, 0.0][..], &[5e-324, 0.0], &[f64::MAX, f64::MAX]] {
            let scale = Scale::around(strange);
            assert!(scale.ticks().all(f64::is_finite) && scale.ticks().count() < 30, "{strange:?}");
            assert!(scale.y(strange[0]).is_finite(), "{strange:?}");
        }
    }

    #[test]
    fn numbers_that_are_as_far_apart_as_can_be_have_their_places() {
        let check = |end: f64, expected: &[&str]| {
            let scale = Scale::around(&[-end, 0.0, end]);
            let heights = [-end, 0.0, end].map(|value| scale.y(value));
            assert!(heights[0] > heights[1] && heights[1] > heights[2], "{end:e}: {heights:?}");
            let ticks: Vec<String> = scale.ticks().map(figure).collect();
            assert_eq!(ticks, expected, "{end:e}");
        };
        check(1e308, &["-1.000e308", "-5.000e307", "0", "5.000e307", "1.000e308"]);
        check(f64::MAX, &["-1.000e308", "0", "1.000e308"]);
    }

    #[test]
    fn a_line_has_gaps_where_there_is_no_number() {
        let picture = line("auc", &points(&[Some(0.1), None, Some(0.3), Some(0.2)]));
        let path = picture.split("d=\"").nth(1).and_then(|it| it.split('"').next()).unwrap();
        let verbs: String = path.chars().filter(char::is_ascii_uppercase).collect();
        assert_eq!(verbs, "MML");
        assert_eq!(picture.matches("<circle").count(), 3);
        assert!(line("none", &[]).ends_with("</svg>"));
    }

    #[test]
    fn a_name_is_text_wherever_it_stands() {
        let hostile = "<script>\"&'";
        let mut marked = points(&[Some(1.0)]);
        (marked[0].label, marked[0].mark) = (hostile.to_owned(), Some(hostile.to_owned()));
        let bars = [Column { label: hostile.to_owned(), value: 1.0 }];
        for picture in [line(hostile, &marked), columns(hostile, &bars)] {
            assert!(!picture.contains("<script"), "{picture}");
            assert!(picture.contains("&lt;script&gt;&quot;&amp;&#39;"), "{picture}");
        }
        assert_eq!(short("encoder.layer.11"), "layer.11");
        assert_eq!(short("embeddings.word_embeddings"), "…_embeddings");
        assert_eq!(short("layer.0.bias"), "layer.0.bias");
    }
}
