//! Rows as a parquet file: one row group, columns named and ordered as in `results.jsonl`, seeds as
//! a list.

use std::sync::Arc;

use parquet::{
    data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int64Type},
    errors::ParquetError,
    file::{
        properties::WriterProperties,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::parser::parse_message_type,
};
use scumble_report::evaluation::Row;

use crate::failure::Failure;

/// Text is UTF-8; `seeds` has the three levels that the format asks of lists. Seeds are below 2^63.
const SCHEMA: &str = "message rows {
    required binary subject (UTF8);
    optional binary concept (UTF8);
    required binary metric (UTF8);
    optional double value;
    optional int64 n;
    optional double low;
    optional double high;
    required group seeds (LIST) { repeated group list { required int64 element; } }
    required binary hash (UTF8);
}";

/// The file's bytes.
///
/// # Errors
/// None in practice: rows hold nothing that the format cannot.
pub(crate) fn bytes(rows: &[Row]) -> Result<Vec<u8>, Failure> {
    encoded(rows).map_err(|e| Failure::new(format!("results.parquet: {e}")))
}

fn encoded(rows: &[Row]) -> Result<Vec<u8>, ParquetError> {
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let properties = WriterProperties::builder()
        .set_created_by(format!("scumble {}", env!("CARGO_PKG_VERSION")))
        .build();
    let mut file = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut file, schema, Arc::new(properties))?;
    let mut group = writer.next_row_group()?;
    let text = |of: &dyn Fn(&Row) -> Option<String>| {
        rows.iter()
            .map(|row| of(row).map(|s| ByteArray::from(s.as_str())))
            .collect::<Vec<_>>()
    };
    required(&mut group, text(&|row| Some(row.subject.clone())))?;
    optional::<ByteArrayType>(&mut group, text(&|row| row.concept.clone()))?;
    required(&mut group, text(&|row| Some(row.metric.clone())))?;
    optional::<DoubleType>(&mut group, rows.iter().map(|row| row.value).collect())?;
    optional::<Int64Type>(
        &mut group,
        rows.iter().map(|row| row.n.map(|n| n as i64)).collect(),
    )?;
    optional::<DoubleType>(&mut group, rows.iter().map(|row| row.low).collect())?;
    optional::<DoubleType>(&mut group, rows.iter().map(|row| row.high).collect())?;
    seeds(&mut group, rows)?;
    required(&mut group, text(&|row| Some(row.hash.clone())))?;
    group.close()?;
    writer.close()?;
    Ok(file)
}

fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, &mut Vec<u8>>,
    values: &[T::T],
    defined: Option<&[i16]>,
    repeated: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let mut column = group
        .next_column()?
        .ok_or_else(|| ParquetError::General("a column too many".into()))?;
    column.typed::<T>().write_batch(values, defined, repeated)?;
    column.close()
}

fn required(
    group: &mut SerializedRowGroupWriter<'_, &mut Vec<u8>>,
    values: Vec<Option<ByteArray>>,
) -> Result<(), ParquetError> {
    let values: Vec<ByteArray> = values.into_iter().flatten().collect();
    column::<ByteArrayType>(group, &values, None, None)
}

fn optional<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, &mut Vec<u8>>,
    values: Vec<Option<T::T>>,
) -> Result<(), ParquetError> {
    let defined: Vec<i16> = values
        .iter()
        .map(|value| i16::from(value.is_some()))
        .collect();
    let values: Vec<T::T> = values.into_iter().flatten().collect();
    column::<T>(group, &values, Some(&defined), None)
}

fn seeds(
    group: &mut SerializedRowGroupWriter<'_, &mut Vec<u8>>,
    rows: &[Row],
) -> Result<(), ParquetError> {
    let (mut values, mut defined, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        if row.seeds.is_empty() {
            defined.push(0);
            repeated.push(0);
        }
        for (i, &seed) in row.seeds.iter().enumerate() {
            values.push(seed as i64);
            defined.push(1);
            repeated.push(i16::from(i > 0));
        }
    }
    column::<Int64Type>(group, &values, Some(&defined), Some(&repeated))
}

#[cfg(test)]
mod tests {
    use parquet::{
        file::reader::{FileReader, SerializedFileReader},
        record::{Field, ListAccessor, RowAccessor},
    };

    use super::*;

    /// The bytes as a file that can be read at several places.
    #[expect(
        clippy::disallowed_types,
        reason = "a temporary file has no path that an error could name"
    )]
    fn file(bytes: &[u8]) -> std::fs::File {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, bytes).unwrap();
        file
    }

    #[test]
    fn rows_come_back_as_they_were_written() {
        let full = Row {
            subject: "esd".into(),
            concept: Some("church".into()),
            metric: "target".into(),
            value: Some(0.25),
            n: Some(48),
            low: Some(0.1),
            high: Some(0.5),
            seeds: vec![3, 1, 2],
            hash: "ab".into(),
        };
        let bare = Row {
            concept: None,
            value: None,
            n: None,
            low: None,
            high: None,
            seeds: vec![],
            ..full.clone()
        };
        let bytes = bytes(&[full, bare]).unwrap();
        let reader = SerializedFileReader::new(file(&bytes)).unwrap();
        let rows: Vec<_> = reader
            .get_row_iter(None)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(rows.len(), 2);
        assert_eq!(
            (
                rows[0].get_string(0).unwrap().as_str(),
                rows[0].get_double(3).unwrap()
            ),
            ("esd", 0.25)
        );
        assert_eq!(
            (
                rows[0].get_long(4).unwrap(),
                rows[0].get_string(8).unwrap().as_str()
            ),
            (48, "ab")
        );
        let seeds = rows[0].get_list(7).unwrap();
        assert_eq!(
            (0..seeds.len())
                .map(|i| seeds.get_long(i).unwrap())
                .collect::<Vec<_>>(),
            [3, 1, 2]
        );
        let fields: Vec<&Field> = rows[1].get_column_iter().map(|(_, field)| field).collect();
        assert!(matches!(
            (fields[1], fields[3], fields[4]),
            (Field::Null, Field::Null, Field::Null)
        ));
        assert_eq!(rows[1].get_list(7).unwrap().len(), 0);
    }

    #[test]
    fn no_rows_are_a_table_too() {
        let bytes = bytes(&[]).unwrap();
        let reader = SerializedFileReader::new(file(&bytes)).unwrap();
        assert_eq!(reader.metadata().file_metadata().num_rows(), 0);
    }
}
