//! Documents as one page of HTML: no scripts, nothing from elsewhere, light or dark as the reader has it.

use super::document::{Block, Cell, Document, Grid};
use super::plot;
use super::table::{Align, printable};

/// How the page looks. It is read in a browser, printed, and sent as a file.
const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c2430;--faint:#5d6b7e;--rule:#dfe4ea;--row:#f5f7fa;--ground:#fff;\
--bar:#2f6bd8}\
@media (prefers-color-scheme:dark){:root{--ink:#e6eaf0;--faint:#9aa7b8;--rule:#303845;--row:#1b2028;\
--ground:#14181f;--bar:#6ea8ff}}\
body{margin:0 auto;padding:2rem 1.5rem 4rem;max-width:76rem;background:var(--ground);color:var(--ink);\
font:15px/1.5 system-ui,sans-serif}\
h1{font-size:1.6rem;margin:0 0 1rem;overflow-wrap:anywhere}\
h2{font-size:1.1rem;margin:2.2rem 0 .6rem;overflow-wrap:anywhere}p{margin:.4rem 0;color:var(--faint)}\
nav{display:flex;flex-wrap:wrap;gap:.2rem 1rem;margin:1rem 0;font-size:.9rem}a{color:var(--bar)}\
.wide{overflow-x:auto;margin:.6rem 0}\
table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums}\
th,td{padding:.28rem .9rem .28rem 0;text-align:left;white-space:nowrap;border-bottom:1px solid var(--rule)}\
th{color:var(--faint);font-weight:500;font-size:.74rem;letter-spacing:.03em}\
tbody tr:hover{background:var(--row)}.number{text-align:right}\
.bar{width:12rem}.bar div{height:.7rem;border-radius:2px;background:var(--bar)}\
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(30rem,100%),1fr));gap:1rem;margin:.8rem 0}\
.plots svg:only-child{grid-column:1/-1;max-width:56rem}\
.plots svg{width:100%;height:auto;border:1px solid var(--rule);border-radius:6px}";

/// What the page may load: nothing. Should a name ever become more than text, it would do nothing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// The document as a whole page.
pub fn html(document: &Document) -> String {
    let title = escaped(&document.title);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{title}</title><style>{STYLE}{}</style></head>\n<body><h1>{title}</h1>\n",
        plot::STYLE
    );
    page += &contents(document);
    let mut number = 0;
    for block in &document.blocks {
        match block {
            Block::Heading(heading) => {
                number += 1;
                page += &format!("<h2 id=\"part-{number}\">{}</h2>\n", escaped(heading));
            }
            Block::Note(note) => page += &format!("<p>{}</p>\n", escaped(note)),
            Block::Grid(grid) => page += &table(grid),
            Block::Plots(plots) => {
                page += &format!("<div class=\"plots\">{}</div>\n", plots.concat());
            }
        }
    }
    page + "</body></html>\n"
}

/// Links to the parts.
fn contents(document: &Document) -> String {
    let headings = document.blocks.iter().filter_map(|block| match block {
        Block::Heading(heading) => Some(heading),
        Block::Note(_) | Block::Grid(_) | Block::Plots(_) => None,
    });
    let link = |(number, heading): (u32, &String)| {
        format!("<a href=\"#part-{number}\">{}</a>", escaped(heading))
    };
    format!("<nav>{}</nav>\n", (1..).zip(headings).map(link).collect::<String>())
}

fn table(grid: &Grid) -> String {
    let class = |align: &Align| match align {
        Align::Left => "",
        Align::Right => " class=\"number\"",
    };
    let mut text = String::from("<div class=\"wide\"><table><thead><tr>");
    for (head, align) in &grid.columns {
        text += &format!("<th{}>{}</th>", class(align), escaped(head));
    }
    text += "</tr></thead><tbody>\n";
    for row in &grid.rows {
        text += "<tr>";
        for (cell, (_, align)) in row.iter().zip(&grid.columns) {
            match cell {
                Cell::Text(value) => {
                    text += &format!("<td{}>{}</td>", class(align), escaped(value))
                }
                Cell::Bar(share) => {
                    let percent =
                        if share.is_finite() { share.clamp(0.0, 1.0) * 100.0 } else { 0.0 };
                    text += &format!(
                        "<td class=\"bar\"><div style=\"width:{percent:.1}%\"></div></td>"
                    );
                }
            }
        }
        text += "</tr>\n";
    }
    text + "</tbody></table></div>\n"
}

/// Text that means nothing in HTML, wherever in it it stands.
pub(super) fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in printable(text).chars() {
        match character {
            '&' => shown.push_str("&amp;"),
            '<' => shown.push_str("&lt;"),
            '>' => shown.push_str("&gt;"),
            '"' => shown.push_str("&quot;"),
            '\'' => shown.push_str("&#39;"),
            other => shown.push(other),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_text_wherever_it_stands() {
        let hostile = "</title><script>alert(\"'&\")</script>\u{1b}";
        let mut document = Document::new(hostile);
        document.heading(hostile);
        document.note(hostile);
        let mut grid = Grid::new(&[(hostile, Align::Left), ("B", Align::Right)]);
        grid.row([hostile.into(), Cell::Bar(0.5)]);
        document.grid(grid);
        let page = html(&document);
        assert!(!page.contains("<script") && !page.contains('\u{1b}'), "{page}");
        assert_eq!(
            page.matches("&lt;script&gt;alert(&quot;&#39;&amp;&quot;)").count(),
            7,
            "{page}"
        );
        assert!(page.contains("width:50.0%"), "{page}");
    }
}
