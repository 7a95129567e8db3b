//! Horizontal bars as SVG. The colours are of middle brightness, so that they can be read on white and on black.

/// Bars beside each other, with one scale.
pub(crate) struct Group {
    /// What is above them.
    pub(crate) title: String,
    /// What they are of, their length, and whether they are ours.
    pub(crate) bars: Vec<Bar>,
}

/// A bar.
pub(crate) struct Bar {
    /// What it is of.
    pub(crate) name: String,
    /// Its length, in what the title says.
    pub(crate) value: f64,
    /// Whether it stands out.
    pub(crate) is_ours: bool,
}

const WIDTH: f64 = 760.0;
/// Where bars begin; left of it are their names.
const LEFT: f64 = 320.0;
/// The longest bar; right of it is room for its value.
const LONGEST: f64 = 370.0;
const ROW: f64 = 26.0;
const TEXT: &str = "#6e7781";
const OURS: &str = "#c4622d";
const OTHERS: &str = "#7d8da1";

/// The picture, with `caption` below.
pub(crate) fn svg(title: &str, groups: &[Group], caption: &str) -> String {
    let mut body = String::new();
    let mut y = 8.0;
    for group in groups {
        y += ROW;
        body.push_str(&text(8.0, y, "start", "600", &group.title));
        y += 10.0;
        let most = group.bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
        for bar in &group.bars {
            let length = bar.value / most * LONGEST;
            let colour = if bar.is_ours { OURS } else { OTHERS };
            body.push_str(&text(LEFT - 10.0, y + 16.0, "end", "400", &bar.name));
            body.push_str(&format!(
                "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{length:.1}\" height=\"18\" rx=\"2\" fill=\"{colour}\"/>\n",
                y + 2.0
            ));
            body.push_str(&text(LEFT + length + 8.0, y + 16.0, "start", "400", &format!("{:.2}", bar.value)));
            y += ROW;
        }
    }
    y += ROW;
    body.push_str(&text(8.0, y, "start", "400", caption));
    let height = y + 12.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         role=\"img\" font-family=\"sans-serif\" font-size=\"14\">\n<title>{}</title>\n{body}</svg>",
        escaped(title)
    )
}

fn text(x: f64, y: f64, anchor: &str, weight: &str, text: &str) -> String {
    let text = escaped(text);
    format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{TEXT}\" font-weight=\"{weight}\" text-anchor=\"{anchor}\">{text}</text>\n"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
