//! How a result is printed: tables for a reader, and at the end one `name = value` a line for everything else.

use std::iter;

use super::rounds::Median;

/// A table for a reader; its first column is text, the others are numbers.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(title: &str, columns: &[&str]) -> Self {
        let head = iter::once(&title).chain(columns);
        let head = head.map(|&name| name.to_owned());
        Self {
            rows: vec![head.collect()],
        }
    }

    pub(crate) fn row(&mut self, name: &str, cells: impl IntoIterator<Item = String>) {
        let name = [name.to_owned()];
        self.rows.push(name.into_iter().chain(cells).collect());
    }

    /// Prints it as Markdown, in columns that are as wide as what stands in them.
    pub(crate) fn print(&self) {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        println!();
        for (index, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (column, &width) in widths.iter().enumerate() {
                let cell = row.get(column).map_or("", String::as_str);
                line += &match column {
                    0 => format!("| {cell:<width$} |"),
                    _ => format!(" {cell:>width$} |"),
                };
            }
            println!("{line}");
            if index == 0 {
                let rule = |(column, &width): (usize, &usize)| match column {
                    0 => format!("|-{}-|", "-".repeat(width)),
                    _ => format!("-{}:|", "-".repeat(width)),
                };
                println!(
                    "{}",
                    widths.iter().enumerate().map(rule).collect::<String>()
                );
            }
        }
    }
}

/// A number as a cell, with three significant digits.
pub(crate) fn cell(number: f64) -> String {
    let size = number.abs();
    match size {
        _ if size >= 100.0 => format!("{number:.0}"),
        _ if size >= 10.0 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

/// A median as a cell, with its quartiles.
pub(crate) fn spread(median: Median) -> String {
    let Median { low, middle, high } = median;
    format!("{} ({}–{})", cell(middle), cell(low), cell(high))
}

/// What a bench found, to be printed last.
#[derive(Default)]
pub(crate) struct Values {
    lines: Vec<String>,
}

impl Values {
    pub(crate) fn add(&mut self, name: &str, value: f64) {
        self.lines.push(format!("{name} = {value:.3}"));
    }

    pub(crate) fn count(&mut self, name: &str, value: u64) {
        self.lines.push(format!("{name} = {value}"));
    }

    pub(crate) fn print(&self) {
        println!();
        for line in &self.lines {
            println!("{line}");
        }
    }
}
