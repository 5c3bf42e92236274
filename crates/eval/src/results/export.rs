use super::{Finished, Results};
use crate::{EvalError, format::csv_field};
use parquet::{
    basic::{ConvertedType, Repetition, Type as Physical},
    data_type::{ByteArray, ByteArrayType, DoubleType},
    errors::ParquetError,
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::types::Type,
};
use serde_json::Value;
use std::{collections::BTreeMap, io::Write, sync::Arc};

/// How results are exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// An array of cells with everything measured.
    Json,
    /// One row a cell; measured numbers and texts as columns, lists left out.
    Csv,
    /// The same as a parquet file.
    Parquet,
}

impl Results {
    /// Writes all finished cells to `out`.
    ///
    /// # Errors
    /// When the results cannot be read or `out` cannot be written.
    pub fn export(&self, format: Format, out: &mut (dyn Write + Send)) -> Result<(), EvalError> {
        let cells = self.finished()?;
        let wrote = match format {
            Format::Json => serde_json::to_writer_pretty(&mut *out, &cells)
                .map_err(std::io::Error::from)
                .and_then(|()| out.write_all(b"\n")),
            Format::Csv => write_csv(&cells, out),
            Format::Parquet => write_parquet(&cells, &mut *out).map_err(std::io::Error::other),
        };
        wrote.and_then(|()| out.flush()).map_err(|source| EvalError::Export { source })
    }
}

/// One column: its name and a value for every cell.
struct Column {
    name: String,
    values: Vec<Option<Value>>,
}

/// The cells as columns: inputs first, then `measured.…` in the order of their names.
fn columns(cells: &[Finished]) -> Vec<Column> {
    const FIRST: [&str; 17] = [
        "key",
        "experiment",
        "model",
        "model_hash",
        "name",
        "spec",
        "context",
        "text",
        "text_hash",
        "seed",
        "state",
        "version",
        "command",
        "started_at",
        "duration_s",
        "error",
        "machine.cpu",
    ];
    let rows: Vec<BTreeMap<String, Value>> = cells
        .iter()
        .map(|cell| {
            let mut flat = BTreeMap::new();
            flatten("", &serde_json::json!(cell), &mut flat);
            flat
        })
        .collect();
    let mut names: Vec<String> = FIRST.map(str::to_owned).to_vec();
    let mut rest: Vec<&String> =
        rows.iter().flat_map(BTreeMap::keys).filter(|name| !FIRST.contains(&name.as_str())).collect();
    rest.sort_unstable();
    rest.dedup();
    names.extend(rest.into_iter().cloned());
    names
        .into_iter()
        .map(|name| Column { values: rows.iter().map(|row| row.get(&name).cloned()).collect(), name })
        .collect()
}

/// Scalars of a JSON value under dotted names.
fn flatten(prefix: &str, value: &Value, flat: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            flatten(&name, value, flat);
        }),
        Value::Array(_) | Value::Null => {}
        scalar => {
            flat.insert(prefix.to_owned(), scalar.clone());
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// RFC 4180.
fn write_csv(cells: &[Finished], out: &mut dyn Write) -> std::io::Result<()> {
    let columns = columns(cells);
    let line = |fields: Vec<String>| fields.join(",") + "\r\n";
    out.write_all(line(columns.iter().map(|c| csv_field(&c.name)).collect()).as_bytes())?;
    for row in 0..cells.len() {
        let field =
            |c: &Column| c.values[row].as_ref().map_or_else(String::new, |value| csv_field(&text(value)));
        out.write_all(line(columns.iter().map(field).collect()).as_bytes())?;
    }
    Ok(())
}

fn write_parquet(cells: &[Finished], out: &mut (dyn Write + Send)) -> Result<(), ParquetError> {
    let columns = columns(cells);
    // A column of numbers only is a column of doubles; a seed above 2^53 would be rounded, so it stays text.
    let is_number =
        |column: &Column| column.name != "seed" && column.values.iter().flatten().all(Value::is_number);
    let fields: Vec<Arc<Type>> = columns
        .iter()
        .map(|column| {
            let (physical, converted) = if is_number(column) {
                (Physical::DOUBLE, ConvertedType::NONE)
            } else {
                (Physical::BYTE_ARRAY, ConvertedType::UTF8)
            };
            let builder = Type::primitive_type_builder(&column.name, physical)
                .with_repetition(Repetition::OPTIONAL)
                .with_converted_type(converted);
            builder.build().map(Arc::new)
        })
        .collect::<Result<_, _>>()?;
    let schema = Type::group_type_builder("cells").with_fields(fields).build()?;
    let mut writer = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(WriterProperties::default()))?;
    let mut group = writer.next_row_group()?;
    for column in &columns {
        let Some(mut target) = group.next_column()? else { break };
        let levels: Vec<i16> = column.values.iter().map(|value| i16::from(value.is_some())).collect();
        let present = column.values.iter().flatten();
        if is_number(column) {
            let values: Vec<f64> = present.filter_map(Value::as_f64).collect();
            target.typed::<DoubleType>().write_batch(&values, Some(&levels), None)?;
        } else {
            let values: Vec<ByteArray> =
                present.map(|value| ByteArray::from(text(value).into_bytes())).collect();
            target.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None)?;
        }
        target.close()?;
    }
    group.close()?;
    writer.close()?;
    Ok(())
}
