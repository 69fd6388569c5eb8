//! Clients against servers: a tile says how much of the plan was used, and how many requests were refused.

use plotters::{
    prelude::{BLACK, Rectangle, WHITE},
    style::{Color, RGBColor, text_anchor::HPos},
};

use super::{Area, GREEN, GREY, bold, text, thousands};
use crate::{
    clients::Setup,
    plan_use::{MODELS, Outcome, Row},
};

const N: u32 = 1_000;
const LABELS: i32 = 226;
const TOP: i32 = 124;
const TILE: (i32, i32) = (112, 62);

pub(super) const SIZE: (u32, u32) = (
    (LABELS + 8 * TILE.0 + 20) as u32,
    (TOP + 8 * TILE.1 + 76) as u32,
);

/// Of a hundred that were sent, those that were refused: up to how many, as a legend says it, and a colour.
const LEGEND: [(f64, &str, RGBColor); 4] = [
    (0.0, "none", GREEN),
    (0.5, "up to 0.5 %", RGBColor(167, 200, 95)),
    (5.0, "up to 5 %", RGBColor(240, 173, 78)),
    (100.0, "more", RGBColor(205, 82, 72)),
];

pub(super) fn draw(area: &Area<'_>, rows: &[Row]) {
    let title =
        "A plan of 1,000 requests a minute, always more to send: how much of it does a client get?";
    bold(area, title, (20, 26), 20, HPos::Left);
    let what = "Each tile: 20 minutes of one client with one kind of server. In bold the part of the plan that it used (over 100 %: 20 minutes can touch 21 windows),";
    text(area, what, (20, 50), 14, GREY, HPos::Left);
    let colours = "below how many requests the server refused with a 429. The colour goes by the refused, as a part of what was sent:";
    text(area, colours, (20, 68), 14, GREY, HPos::Left);

    text(
        area,
        "the server counts in",
        (LABELS - 12, TOP - 24),
        14,
        GREY,
        HPos::Right,
    );
    for (model, column) in MODELS.iter().zip(0..) {
        let x = LABELS + column * TILE.0 + TILE.0 / 2;
        for (line, y) in model.title.iter().zip([TOP - 32, TOP - 16]) {
            text(area, line, (x, y), 14, BLACK, HPos::Center);
        }
        for (setup, row) in Setup::ALL.into_iter().zip(0..) {
            let found = rows
                .iter()
                .find(|row| row.n == N && row.model == *model && row.setup == setup);
            let corner = (LABELS + column * TILE.0, TOP + row * TILE.1);
            tile(area, corner, &found.unwrap().full);
        }
    }
    for (setup, row) in Setup::ALL.into_iter().zip(0..) {
        let middle = TOP + row * TILE.1 + TILE.1 / 2;
        let [name, how] = setup.title();
        bold(area, name, (LABELS - 12, middle - 9), 17, HPos::Right);
        text(area, how, (LABELS - 12, middle + 10), 13, GREY, HPos::Right);
    }
    legend(area);
}

fn tile(area: &Area<'_>, (x, y): (i32, i32), outcome: &Outcome) {
    let used = outcome.used(N);
    let colour = colour(outcome.refused_part() * 100.0);
    let (right, bottom) = (x + TILE.0 - 3, y + TILE.1 - 3);
    let whole = Rectangle::new([(x, y), (right, bottom)], colour.filled());
    area.draw(&whole).unwrap();
    // A bar along the foot, as long as what was used of the plan.
    let length = (f64::from(TILE.0 - 15) * used.min(1.0)) as i32;
    for (length, shade) in [(TILE.0 - 15, BLACK.mix(0.15)), (length, WHITE.mix(0.9))] {
        let from = (x + 6, bottom - 9);
        let bar = Rectangle::new([from, (x + 6 + length, bottom - 5)], shade.filled());
        area.draw(&bar).unwrap();
    }
    let middle = (x + right) / 2;
    let percent = format!("{:.1} %", used * 100.0);
    bold(area, &percent, (middle, y + 17), 19, HPos::Center);
    let refused = format!("{} refused", thousands(outcome.refused()));
    text(area, &refused, (middle, y + 37), 13, BLACK, HPos::Center);
}

fn colour(refused: f64) -> RGBColor {
    let band = LEGEND.iter().find(|(most, ..)| refused <= *most);
    band.map_or(GREY, |(.., colour)| *colour)
}

fn legend(area: &Area<'_>) {
    let y = TOP + 8 * TILE.1 + 24;
    text(
        area,
        "refused, of what was sent:",
        (LABELS - 12, y),
        14,
        GREY,
        HPos::Right,
    );
    for ((_, name, colour), place) in LEGEND.iter().zip(0..) {
        let x = LABELS + place * TILE.0;
        let sample = Rectangle::new([(x, y - 8), (x + 16, y + 8)], colour.filled());
        area.draw(&sample).unwrap();
        text(area, name, (x + 22, y), 14, BLACK, HPos::Left);
    }
    let x = LABELS + 5 * TILE.0;
    text(area, "bar: used of the plan", (x, y), 14, GREY, HPos::Left);
    let command = "All clients but the last send again by the same rules. Virtual time; drawn by: cargo bench -p tower-ploton-peers --bench goodput";
    text(area, command, (20, y + 32), 13, GREY, HPos::Left);
}
