//! What instruments read off pictures: named columns of numbers, a row for each picture.

use std::collections::BTreeMap;

/// Numbers about pictures, `width` of them for each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Column {
    /// Numbers for each picture.
    pub width: usize,
    /// All of them, picture by picture.
    pub values: Vec<f32>,
}

impl Column {
    /// A column of these rows.
    pub fn of(rows: Vec<Vec<f32>>) -> Self {
        let width = rows.first().map_or(0, Vec::len);
        Self {
            width,
            values: rows.into_iter().flatten().collect(),
        }
    }

    /// The numbers of one picture; empty where there are none.
    pub fn row(&self, i: usize) -> &[f32] {
        self.values
            .get(i * self.width..(i + 1) * self.width)
            .unwrap_or_default()
    }

    /// How many pictures it is about.
    pub fn rows(&self) -> usize {
        self.values.len().checked_div(self.width).unwrap_or(0)
    }
}

/// Columns by name, all of the same pictures.
pub type Facts = BTreeMap<String, Column>;

/// Puts facts about further pictures below those that are there.
pub fn append(all: &mut Facts, more: Facts) {
    for (name, column) in more {
        let whole = all.entry(name).or_insert_with(|| Column {
            width: column.width,
            values: Vec::new(),
        });
        whole.values.extend(column.values);
    }
}

/// The position of the largest number.
pub fn largest(row: &[f32]) -> Option<usize> {
    (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]))
}
