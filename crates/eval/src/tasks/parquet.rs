use crate::EvalError;
use parquet::{
    errors::ParquetError,
    file::reader::{FileReader, SerializedFileReader},
    record::Field,
    schema::types::Type,
};
use std::{path::Path, sync::Arc};

/// The rows of the column `text` of a parquet file, nulls left out.
///
/// # Errors
/// When the file cannot be opened, is no parquet, or has no string column `text`.
pub(crate) fn read_text_column(path: &Path) -> Result<Vec<String>, EvalError> {
    let broken = |error: ParquetError| EvalError::Input(format!("{}: {error}", path.display()));
    let failed = |source| EvalError::File { path: path.to_owned(), source };
    let file = crate::open_input(path).map_err(failed)?;
    // The end of a parquet file is read first.
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(EvalError::Input(format!("{}: a parquet file cannot come from a pipe", path.display())));
    }
    let reader = SerializedFileReader::new(file).map_err(broken)?;
    let schema = reader.metadata().file_metadata().schema();
    let Some(column) = schema.get_fields().iter().find(|field| field.name() == "text") else {
        let names: Vec<&str> = schema.get_fields().iter().map(|field| field.name()).collect();
        let has = names.join(", ");
        return Err(EvalError::Input(format!("{}: no column `text` among {has}", path.display())));
    };
    let projection = Type::group_type_builder(schema.name())
        .with_fields(vec![Arc::clone(column)])
        .build()
        .map_err(broken)?;
    let mut texts = Vec::new();
    for row in reader.get_row_iter(Some(projection)).map_err(broken)? {
        match row.map_err(broken)?.get_column_iter().next().map(|(_, field)| field.clone()) {
            Some(Field::Str(text)) => texts.push(text),
            // Some writers leave out that a byte column is UTF-8.
            Some(Field::Bytes(bytes)) => match String::from_utf8(bytes.data().to_vec()) {
                Ok(text) => texts.push(text),
                Err(_) => return Err(not_text(path)),
            },
            Some(Field::Null) | None => {}
            Some(_) => return Err(not_text(path)),
        }
    }
    Ok(texts)
}

fn not_text(path: &Path) -> EvalError {
    EvalError::Input(format!("{}: the column `text` does not hold strings", path.display()))
}
