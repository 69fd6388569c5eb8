//! The two pictures, for a reader who knows none of the words: `target/goodput.svg` and `target/outage.svg`.

mod goodput;
mod outage;

use std::{fs, path::Path};

use plotters::{
    coord::Shift,
    prelude::{BLACK, DrawingArea, IntoDrawingArea, RGBColor, SVGBackend, WHITE},
    style::{
        FontStyle, IntoFont, TextStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::{outage::Course, plan_use::Row};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

pub(crate) fn draw(rows: &[Row], courses: &[Course]) {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    fs::create_dir_all(&target).unwrap();
    let target = target.canonicalize().unwrap();
    for (name, size, draw) in [
        (
            "goodput.svg",
            goodput::SIZE,
            &(|area: &Area<'_>| goodput::draw(area, rows)) as &dyn Fn(&Area<'_>),
        ),
        ("outage.svg", outage::SIZE, &|area: &Area<'_>| {
            outage::draw(area, courses)
        }),
    ] {
        let path = target.join(name);
        let area = SVGBackend::new(&path, size).into_drawing_area();
        area.fill(&WHITE).unwrap();
        draw(&area);
        area.present().unwrap();
        println!("\ndrawn: target/{name}");
    }
}

const GREY: RGBColor = RGBColor(110, 110, 110);
/// Of what is marked as good, and as bad.
const GREEN: RGBColor = RGBColor(46, 139, 87);
const ORANGE: RGBColor = RGBColor(230, 145, 56);

/// A text of `size`, which begins at, is centred on or ends at a point's x and is centred on its y.
fn text(area: &Area<'_>, content: &str, at: (i32, i32), size: u32, colour: RGBColor, side: HPos) {
    styled(area, content, at, size, colour, side, FontStyle::Normal);
}

fn bold(area: &Area<'_>, content: &str, at: (i32, i32), size: u32, side: HPos) {
    styled(area, content, at, size, BLACK, side, FontStyle::Bold);
}

fn styled(
    area: &Area<'_>,
    content: &str,
    at: (i32, i32),
    size: u32,
    colour: RGBColor,
    side: HPos,
    style: FontStyle,
) {
    let font = ("sans-serif", size).into_font().style(style);
    let style = TextStyle::from(font)
        .color(&colour)
        .pos(Pos::new(side, VPos::Center));
    area.draw_text(content, &style, at).unwrap();
}

/// `12345` as `12,345`.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
