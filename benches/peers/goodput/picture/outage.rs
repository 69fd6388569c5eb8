//! An outage, as each client lives through it.

use plotters::{
    prelude::{AreaSeries, ChartBuilder, LineSeries, Rectangle},
    style::{BLACK, Color, RGBColor, text_anchor::HPos},
};

use super::{Area, GREEN, GREY, ORANGE, bold, text};
use crate::outage::{Course, FROM, OFFERED, TO};

const COLUMNS: i32 = 3;
const PANEL: (i32, i32) = (380, 250);
const TOP: i32 = 96;

pub(super) const SIZE: (u32, u32) = (
    (COLUMNS * PANEL.0 + 20) as u32,
    (TOP + 2 * PANEL.1 + 40) as u32,
);

/// The seconds that are shown.
const SHOWN: std::ops::Range<usize> = 45..150;

pub(super) fn draw(area: &Area<'_>, courses: &[Course]) {
    let title = "The server fails for a minute: what does a client make of it?";
    bold(area, title, (20, 26), 20, HPos::Left);
    let what = "10 requests a second are asked for, all the time. In the grey minute each attempt is answered with a 503. Panels end at 50 a second.";
    text(area, what, (20, 50), 14, GREY, HPos::Left);
    let key = [
        (ORANGE, "attempts sent in each second", 20),
        (GREEN, "requests that succeeded in each second", 260),
    ];
    for (colour, name, x) in key {
        let sample = Rectangle::new([(x, 64), (x + 16, 80)], colour.filled());
        area.draw(&sample).unwrap();
        text(area, name, (x + 22, 72), 14, BLACK, HPos::Left);
    }
    for (course, place) in courses.iter().zip(0..) {
        let corner = (
            10 + place % COLUMNS * PANEL.0,
            TOP + place / COLUMNS * PANEL.1,
        );
        panel(area, corner, course);
    }
    let command = "Means of 20 runs in virtual time; drawn by: cargo bench -p tower-ploton-peers --bench goodput";
    text(
        area,
        command,
        (20, TOP + 2 * PANEL.1 + 22),
        13,
        GREY,
        HPos::Left,
    );
}

/// What a panel has room for, in a second: more is cut off, and told.
const MOST: f64 = 50.0;

fn panel(area: &Area<'_>, (x, y): (i32, i32), course: &Course) {
    bold(
        area,
        course.retrying.title(),
        (x + 44, y + 14),
        16,
        HPos::Left,
    );
    let attempts = format!(
        "{:.2} attempts for each request in it, at most {:.0} a second",
        course.amplification(),
        course.peak() * OFFERED,
    );
    let fates = format!(
        "{:.0} of 600 requests lost; back to normal {} s after it",
        course.lost(),
        course.recovery(),
    );
    for (line, y) in [(attempts, y + 33), (fates, y + 48)] {
        text(area, &line, (x + 44, y), 13, GREY, HPos::Left);
    }

    let plot = area
        .clone()
        .shrink((x, y + 58), (PANEL.0 as u32 - 6, PANEL.1 as u32 - 64));
    let seconds = SHOWN.start as f64..(SHOWN.end - 1) as f64;
    let mut chart = ChartBuilder::on(&plot)
        .margin_right(8)
        .x_label_area_size(30)
        .y_label_area_size(40)
        .build_cartesian_2d(seconds, 0.0..MOST)
        .unwrap();
    let outage = Rectangle::new(
        [(FROM as f64, 0.0), (TO as f64, MOST)],
        BLACK.mix(0.1).filled(),
    );
    chart.draw_series([outage]).unwrap();
    for (values, colour) in [(&course.attempts, ORANGE), (&course.successes, GREEN)] {
        let points = || SHOWN.map(|second| (second as f64, values[second].min(MOST)));
        let filled = AreaSeries::new(points(), 0.0, colour.mix(0.55));
        chart.draw_series(filled).unwrap();
        chart
            .draw_series(LineSeries::new(points(), colour))
            .unwrap();
    }
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(RGBColor(255, 255, 255).mix(0.0))
        .x_labels(6)
        .y_labels(5)
        .x_desc("seconds")
        .y_label_formatter(&|value| format!("{value:.0}"))
        .x_label_formatter(&|value| format!("{value:.0}"))
        .label_style(("sans-serif", 13))
        .draw()
        .unwrap();
}
