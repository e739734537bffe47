//! Results that several tasks write: rectangles of a matrix that do not overlap, each handed to one
//! task.
//!
//! An [`Area`] is the only way to its numbers, as a `&mut` is. It is split into cells, which takes
//! it; a cell is handed out once. So safe code cannot let two tasks write one number. An area may
//! be of memory that nothing has been written to yet: its numbers are then appended in order, and
//! only what was written can be read. All `unsafe` of results stands in this file.

use std::{
    marker::PhantomData,
    mem::MaybeUninit,
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
};

use pulp::bytemuck::Pod;
use rayon::prelude::*;

/// A matrix in memory, of which areas are parts.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    start: *mut MaybeUninit<f32>,
    /// Numbers in a whole row.
    stride: usize,
    /// Where in the matrix each row of the areas lies; in order if absent. All of them within it,
    /// and no place twice.
    places: Option<&'a [u32]>,
    /// Counts the numbers written to memory that was new.
    written: Option<&'a AtomicUsize>,
    numbers: PhantomData<&'a mut [f32]>,
}

#[expect(
    unsafe_code,
    reason = "a pointer into memory that is borrowed exclusively, as `numbers` says"
)]
// SAFETY: memory is reached through areas only; their rectangles do not overlap, and each belongs
// to one task, as a `&mut` does.
unsafe impl Send for Matrix<'_> {}
#[expect(unsafe_code, reason = "as above")]
// SAFETY: a shared matrix gives access to nothing by itself; an area that has one can be written
// only through `&mut Area`.
unsafe impl Sync for Matrix<'_> {}

/// Some rows and columns of a result: nobody else reads or writes them.
///
/// Invariant: the rows are places of the matrix, the columns lie within its stride, no other area
/// that exists shares a number with this one, and the first `done` rows and `begun` numbers of the
/// next one have been written.
pub(crate) struct Area<'a> {
    matrix: Matrix<'a>,
    rows: Range<usize>,
    columns: Range<usize>,
    done: usize,
    begun: usize,
}

/// How one side of an area is cut into parts of `step`; the last part may be smaller.
#[derive(Clone, Copy)]
pub(crate) struct Cut {
    step: usize,
    period: Option<usize>,
}

impl Cut {
    /// The whole side.
    pub(crate) const WHOLE: Self = Self::every(usize::MAX);

    pub(crate) const fn every(step: usize) -> Self {
        Self { step, period: None }
    }

    /// Parts begin anew after each `period`, as the rows of a picture do in a batch.
    pub(crate) const fn within(period: usize, step: usize) -> Self {
        Self {
            step,
            period: Some(period),
        }
    }

    fn of(self, total: usize) -> Parts {
        assert!(self.step > 0, "parts of nothing");
        let (period, periods) = match self.period {
            None => (total, usize::from(total > 0)),
            Some(period) => {
                assert!(
                    period > 0 && total.is_multiple_of(period),
                    "{total} in periods of {period}"
                );
                (period, total / period)
            }
        };
        let step = self.step.min(period.max(1));
        // Small products are many: a division is a part of their time.
        let each = if step == period {
            1
        } else {
            period.div_ceil(step)
        };
        Parts {
            count: periods * each,
            period,
            step,
            each,
        }
    }
}

/// The parts of one side: ranges that do not overlap and that cover it.
#[derive(Clone, Copy)]
struct Parts {
    count: usize,
    period: usize,
    step: usize,
    /// In one period.
    each: usize,
}

impl Parts {
    fn range(self, i: usize) -> Range<usize> {
        // Divisions cost more than a small cell's work.
        let (period, part) = if i < self.each {
            (0, i)
        } else {
            (i / self.each, i % self.each)
        };
        let (base, first) = (period * self.period, part * self.step);
        base + first..base + (first + self.step).min(self.period)
    }
}

/// Which cells follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Those of one row of cells.
    Rows,
    /// Those of one column of cells.
    Columns,
}

/// The cells of an area that have not been handed out yet.
pub(crate) struct Cells<'a> {
    whole: Whole<'a>,
    next: usize,
}

/// An area that was taken apart.
#[derive(Clone, Copy)]
struct Whole<'a> {
    matrix: Matrix<'a>,
    corner: [usize; 2],
    rows: Parts,
    columns: Parts,
    order: Order,
    /// Whether all of it was written to before.
    filled: bool,
}

impl<'a> Whole<'a> {
    fn count(&self) -> usize {
        self.rows.count * self.columns.count
    }

    /// Cell `i`; each is to be made once only.
    fn cell(self, i: usize) -> Area<'a> {
        let split = |i: usize, by: usize| {
            if i < by {
                (0, i)
            } else if by == 1 {
                (i, 0)
            } else {
                (i / by, i % by)
            }
        };
        let (row, column) = match self.order {
            Order::Rows => split(i, self.columns.count),
            Order::Columns => {
                let (column, row) = split(i, self.rows.count);
                (row, column)
            }
        };
        let moved = |range: Range<usize>, by: usize| range.start + by..range.end + by;
        let (rows, columns) = (
            moved(self.rows.range(row), self.corner[0]),
            moved(self.columns.range(column), self.corner[1]),
        );
        let done = if self.filled { rows.len() } else { 0 };
        Area {
            matrix: self.matrix,
            rows,
            columns,
            done,
            begun: 0,
        }
    }
}

impl<'a> Cells<'a> {
    /// Takes the next `count` cells.
    fn advance(&mut self, count: usize) -> Range<usize> {
        let from = self.next;
        assert!(
            count <= self.whole.count() - from,
            "{count} cells of {}, {from} of which are taken",
            self.whole.count()
        );
        self.next = from + count;
        from..self.next
    }

    /// The next `count` cells, for as many threads as there are.
    ///
    /// # Panics
    /// If so many are not left.
    pub(crate) fn shared(
        &mut self,
        count: usize,
    ) -> impl IndexedParallelIterator<Item = Area<'a>> + use<'a> {
        let whole = self.whole;
        // Behind `impl`, so that nobody can clone the iterator and have a cell twice.
        self.advance(count)
            .into_par_iter()
            .map(move |i| whole.cell(i))
    }

    /// All cells that are left, one after the other.
    pub(crate) fn in_order(mut self) -> impl Iterator<Item = Area<'a>> + use<'a> {
        let whole = self.whole;
        self.advance(whole.count() - self.next)
            .map(move |i| whole.cell(i))
    }

    /// How many are left.
    pub(crate) fn len(&self) -> usize {
        self.whole.count() - self.next
    }
}

impl<'a> Area<'a> {
    /// All of a buffer, in rows of `stride` numbers.
    ///
    /// # Panics
    /// If they do not fill it.
    pub(crate) fn of(buffer: &'a mut [f32], stride: usize) -> Self {
        let mut area = Self::whole(buffer.as_mut_ptr().cast(), buffer.len(), stride, None);
        area.done = area.height();
        area
    }

    fn whole(
        start: *mut MaybeUninit<f32>,
        length: usize,
        stride: usize,
        written: Option<&'a AtomicUsize>,
    ) -> Self {
        assert!(
            length.is_multiple_of(stride.max(1)),
            "{length} numbers in rows of {stride}"
        );
        let matrix = Matrix {
            start,
            stride,
            places: None,
            written,
            numbers: PhantomData,
        };
        Self {
            matrix,
            rows: 0..length / stride.max(1),
            columns: 0..stride,
            done: 0,
            begun: 0,
        }
    }

    /// How many rows there are.
    pub(crate) fn height(&self) -> usize {
        self.rows.len()
    }

    /// Numbers in a row.
    pub(crate) fn width(&self) -> usize {
        self.columns.len()
    }

    /// Its rows, counted as in the area of which it is a cell.
    pub(crate) fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// Its columns, counted as in the matrix.
    pub(crate) fn columns(&self) -> Range<usize> {
        self.columns.clone()
    }

    /// The same to be written from its first number on, whatever it holds.
    pub(crate) fn anew(mut self) -> Self {
        (self.done, self.begun) = (0, 0);
        self
    }

    /// Whether all of it has been written; `false` if nothing has.
    ///
    /// # Panics
    /// If a part of it has.
    fn is_filled(&self) -> bool {
        let filled = self.done == self.height();
        assert!(
            self.begun == 0 && (filled || self.done == 0),
            "an area that is partly written cannot be taken apart"
        );
        filled
    }

    /// Cuts it into cells.
    ///
    /// # Panics
    /// If some but not all of it has been written.
    pub(crate) fn cells(mut self, rows: Cut, columns: Cut, order: Order) -> Cells<'a> {
        let filled = self.is_filled();
        let whole = Whole {
            matrix: self.matrix,
            corner: [self.rows.start, self.columns.start],
            rows: rows.of(self.height()),
            columns: columns.of(self.width()),
            order,
            filled,
        };
        // What is written from now on is counted by the cells.
        self.matrix.written = None;
        Cells { whole, next: 0 }
    }

    /// Areas of whole rows in another order: row `i` of area `k` lies at `places[k][i]`.
    ///
    /// # Panics
    /// If a place lies outside or occurs twice, or this is not the whole of a matrix that has an order of its own.
    pub(crate) fn scattered<const N: usize>(mut self, places: [&'a [u32]; N]) -> [Self; N] {
        assert!(
            self.matrix.places.is_none()
                && self.rows.start == 0
                && self.width() == self.matrix.stride,
            "not a whole matrix"
        );
        let filled = self.is_filled();
        let mut taken = vec![false; self.height()];
        for &place in places.iter().copied().flatten() {
            let first = taken
                .get_mut(place as usize)
                .is_some_and(|taken| !std::mem::replace(taken, true));
            assert!(
                first,
                "row {place} of {} lies outside or is given twice",
                self.height()
            );
        }
        let areas = places.map(|places| Self {
            matrix: Matrix {
                places: Some(places),
                ..self.matrix
            },
            rows: 0..places.len(),
            columns: self.columns.clone(),
            done: if filled { places.len() } else { 0 },
            begun: 0,
        });
        self.matrix.written = None;
        areas
    }

    /// Where row `row`, counted within the area, begins.
    #[inline(always)]
    #[expect(unsafe_code, reason = "the place is computed, and lies in the matrix")]
    fn start(&self, row: usize) -> *mut MaybeUninit<f32> {
        assert!(row < self.rows.len(), "row {row} of {}", self.rows.len());
        let row = self.rows.start + row;
        let place = match self.matrix.places {
            None => row,
            Some(places) => places[row] as usize,
        };
        // SAFETY: rows and columns of an area lie in its matrix.
        unsafe {
            self.matrix
                .start
                .add(place * self.matrix.stride + self.columns.start)
        }
    }

    /// Writes the numbers that follow the last ones written; they may not go on in the next row.
    ///
    /// # Panics
    /// If they would, or all has been written.
    #[inline(always)]
    #[expect(
        unsafe_code,
        reason = "memory that nothing was written to cannot be a slice of numbers"
    )]
    pub(crate) fn append(&mut self, numbers: &[f32]) {
        if numbers.is_empty() {
            return;
        }
        let end = self.begun + numbers.len();
        assert!(
            end <= self.width(),
            "{} numbers from {} in a row of {}",
            numbers.len(),
            self.begun,
            self.width()
        );
        let start = self.start(self.done);
        // SAFETY: the numbers fit into the row from there on; the row is this area's alone.
        unsafe {
            std::ptr::copy_nonoverlapping(
                numbers.as_ptr().cast(),
                start.add(self.begun),
                numbers.len(),
            )
        };
        if end == self.width() {
            (self.done, self.begun) = (self.done + 1, 0);
        } else {
            self.begun = end;
        }
    }

    /// Writes the rows that follow the last one written: the first `count` of `rows`, vectors of a
    /// processor that go from registers to memory as they are.
    ///
    /// # Panics
    /// If the vectors are no rows, the last row is not complete, or there is no place for so many.
    #[inline(always)]
    #[expect(
        unsafe_code,
        reason = "memory that nothing was written to cannot be a slice of vectors"
    )]
    pub(crate) fn append_vectors<T: Pod, const V: usize, const M: usize>(
        &mut self,
        rows: &[[T; V]; M],
        count: usize,
    ) {
        assert!(
            self.begun == 0 && size_of::<[T; V]>() == size_of::<f32>() * self.width(),
            "vectors that are no rows"
        );
        let first = self.done;
        assert!(
            count <= M && first + count <= self.rows.len(),
            "{count} rows from {first} of {}",
            self.rows.len()
        );
        let (stride, left) = (self.matrix.stride, self.columns.start);
        match self.matrix.places {
            None => {
                let top = self.rows.start + first;
                #[expect(
                    clippy::needless_range_loop,
                    reason = "indices into a fixed array become registers"
                )]
                for i in 0..count {
                    // SAFETY: the row lies in the matrix and is this area's alone; the vectors are
                    // as long as it is, and the bytes of any such vector are numbers.
                    unsafe {
                        self.matrix
                            .start
                            .add((top + i) * stride + left)
                            .cast::<[T; V]>()
                            .write_unaligned(rows[i])
                    };
                }
            }
            Some(places) => {
                let places = &places[self.rows.start + first..][..count];
                for i in 0..count {
                    // SAFETY: as above.
                    unsafe {
                        self.matrix
                            .start
                            .add(places[i] as usize * stride + left)
                            .cast::<[T; V]>()
                            .write_unaligned(rows[i])
                    };
                }
            }
        }
        self.done = first + count;
    }

    /// A row that has been written.
    ///
    /// # Panics
    /// If it has not been.
    #[inline(always)]
    #[expect(unsafe_code, reason = "written numbers of the area's own")]
    pub(crate) fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.done, "row {row} has not been written");
        // SAFETY: the row lies in the matrix, is this area's alone for as long as it is borrowed,
        // and was written.
        unsafe { std::slice::from_raw_parts_mut(self.start(row).cast(), self.width()) }
    }

    /// All its rows, which have been written.
    ///
    /// # Panics
    /// If they are not `N`, or have not been written.
    #[expect(unsafe_code, reason = "written numbers of the area's own")]
    pub(crate) fn lines<const N: usize>(&mut self) -> [&mut [f32]; N] {
        assert!(
            N == self.height() && N == self.done,
            "{N} rows of {}, {} written",
            self.height(),
            self.done
        );
        let (width, rows) = (self.width(), self.rows.start);
        let Matrix {
            start,
            stride,
            places,
            ..
        } = self.matrix;
        let left = self.columns.start;
        std::array::from_fn(|row| {
            let place = places.map_or(rows + row, |places| places[rows + row] as usize);
            // SAFETY: as `row`; the rows of an area do not overlap, and each is given once.
            unsafe {
                std::slice::from_raw_parts_mut(start.add(place * stride + left).cast(), width)
            }
        })
    }
}

impl Drop for Area<'_> {
    fn drop(&mut self) {
        if let Some(written) = self.matrix.written {
            written.fetch_add(self.done * self.width() + self.begun, Ordering::Relaxed);
        }
    }
}

/// A new result of `length` numbers in rows of `stride`, every one of which `write` writes:
/// clearing them first would cost as much as a small product.
///
/// # Panics
/// If a number was not written.
#[expect(unsafe_code, reason = "the numbers are counted as they are written")]
pub(crate) fn written(length: usize, stride: usize, write: impl FnOnce(Area<'_>)) -> Vec<f32> {
    let mut numbers: Vec<f32> = Vec::with_capacity(length);
    let count = AtomicUsize::new(0);
    let start = numbers.spare_capacity_mut().as_mut_ptr().cast();
    write(Area::whole(start, length, stride, Some(&count)));
    let count = count.into_inner();
    assert_eq!(count, length, "numbers of a result that were written");
    // SAFETY: the capacity is there. Areas do not overlap and each writes its numbers in order,
    // once, before it counts them: as many as there are means all.
    unsafe { numbers.set_len(length) };
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panics(of: impl FnOnce() + std::panic::UnwindSafe) -> String {
        let panic = std::panic::catch_unwind(of).expect_err("it has to panic");
        panic
            .downcast_ref::<String>()
            .cloned()
            .or(panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
            .unwrap_or_default()
    }

    /// Each cell writes its own number; all of them are there afterwards, whatever the cuts.
    #[test]
    fn cells_cover_an_area_and_do_not_overlap() {
        for (rows, columns, order) in [
            (Cut::every(3), Cut::every(4), Order::Rows),
            (Cut::within(4, 3), Cut::WHOLE, Order::Columns),
            (Cut::WHOLE, Cut::within(5, 2), Order::Columns),
            (Cut::every(100), Cut::every(1), Order::Rows),
        ] {
            let result = written(8 * 10, 10, |area| {
                let mut cells = area.cells(rows, columns, order);
                let half = cells.len() / 2;
                let fill = |mut cell: Area<'_>| {
                    let (top, left) = (cell.rows().start, cell.columns());
                    for row in 0..cell.height() {
                        let numbers: Vec<f32> = left
                            .clone()
                            .map(|column| ((top + row) * 10 + column) as f32)
                            .collect();
                        cell.append(&numbers[..1]);
                        cell.append(&numbers[1..]);
                        assert_eq!(cell.row(row), numbers);
                    }
                };
                cells.shared(half).for_each(fill);
                cells.in_order().for_each(fill);
            });
            assert_eq!(result, (0..80).map(|i| i as f32).collect::<Vec<_>>());
        }
        assert!(written(0, 0, |_| {}).is_empty());
    }

    #[test]
    fn rows_may_lie_in_any_order_but_not_in_one_place() {
        let places: [&[u32]; 2] = [&[3, 0], &[1, 4, 2]];
        let result = written(10, 2, |area| {
            for (k, mut part) in area.scattered(places).into_iter().enumerate() {
                (0..part.height()).for_each(|row| part.append(&[k as f32, row as f32]));
            }
        });
        assert_eq!(result, [0.0, 1.0, 1.0, 0.0, 1.0, 2.0, 0.0, 0.0, 1.0, 1.0]);
        for wrong in [[&[0, 1][..], &[1]], [&[2, 2], &[]], [&[5], &[]]] {
            let said =
                panics(|| drop(Area::of(&mut [0.0; 10], 2).scattered(wrong.map(|p: &[u32]| p))));
            assert!(said.contains("outside or is given twice"), "{said}");
        }
    }

    #[test]
    fn what_was_not_written_cannot_be_read() {
        let said = panics(|| drop(written(4, 2, |mut area| area.append(&[1.0, 2.0]))));
        assert!(
            said.contains("numbers of a result that were written"),
            "{said}"
        );
        let said = panics(|| drop(written(4, 2, |mut area| assert_eq!(area.row(0).len(), 2))));
        assert!(said.contains("has not been written"), "{said}");
        let said = panics(|| drop(written(4, 2, |mut area| area.append(&[0.0; 3]))));
        assert!(said.contains("in a row of 2"), "{said}");
        let said = panics(|| Area::of(&mut [0.0; 4], 2).append(&[0.0]));
        assert!(said.contains("row 2 of 2"), "{said}");
        let said = panics(|| assert_eq!(Area::of(&mut [0.0; 4], 2).anew().row(0).len(), 2));
        assert!(said.contains("has not been written"), "{said}");
        let said = panics(|| {
            let mut cells_of = [0.0; 4];
            let mut cells =
                Area::of(&mut cells_of, 2).cells(Cut::every(1), Cut::WHOLE, Order::Rows);
            drop(cells.shared(1));
            drop(cells.shared(2));
        });
        assert!(said.contains("1 of which are taken"), "{said}");
    }

    #[test]
    fn a_buffer_can_be_written_in_any_order() {
        let mut buffer = [0.0; 6];
        Area::of(&mut buffer, 3)
            .cells(Cut::WHOLE, Cut::every(2), Order::Rows)
            .in_order()
            .for_each(|mut cell| {
                let mark = cell.columns().start as f32;
                (0..2)
                    .rev()
                    .for_each(|row| cell.row(row).fill(mark + row as f32));
            });
        assert_eq!(buffer, [0.0, 0.0, 2.0, 1.0, 1.0, 3.0]);
    }
}
