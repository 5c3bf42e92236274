use super::{Cell, Finished, State, owner};
use crate::{EvalError, Machine};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, TransactionBehavior, params};
use serde::Serialize;
use serde_json::Value;
use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// `SKKV`, in the header of every results file.
const APPLICATION: i32 = 0x534B_4B56;

/// Raised when the tables change.
const LAYOUT: i32 = 2;

/// What brings a file of layout 1 to this one.
const FROM_LAYOUT_1: &str = "ALTER TABLE cells ADD COLUMN name TEXT";

const SCHEMA: &str = "
CREATE TABLE cells (
    key TEXT PRIMARY KEY,
    experiment TEXT NOT NULL,
    model TEXT NOT NULL,
    model_hash TEXT NOT NULL,
    spec TEXT NOT NULL,
    context INTEGER NOT NULL,
    text TEXT NOT NULL,
    text_hash TEXT NOT NULL,
    seed INTEGER NOT NULL,
    settings TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('running', 'done', 'failed')),
    owner TEXT NOT NULL,
    version TEXT NOT NULL,
    machine TEXT NOT NULL,
    command TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    duration_s REAL,
    measured TEXT,
    error TEXT,
    name TEXT
) STRICT;
CREATE INDEX cells_by_experiment ON cells (experiment, model_hash, context);";

const COLUMNS: &str = "key, experiment, model, model_hash, spec, context, text, text_hash, seed, settings, state, \
                       version, machine, command, started_at, duration_s, measured, error, name";

/// An open results file.
pub struct Results {
    connection: Connection,
    path: PathBuf,
    command: String,
}

/// What to do about a cell.
#[derive(Debug, Clone, PartialEq)]
pub enum Claim {
    /// This process runs it now, and must finish it.
    Mine,
    /// It came to an end already, done or failed.
    Finished(Box<Finished>),
    /// Another living process runs it.
    Taken,
}

/// What a merge did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Merged {
    /// Cells taken over.
    pub added: usize,
    /// Cells that were known here already.
    pub known: usize,
}

impl Results {
    /// Opens the results file at `path`, or makes it. `command` is stored with every cell that this process runs.
    ///
    /// # Errors
    /// When the file is of another kind, damaged, or of a newer layout (it is then left as it is), or the disk is full.
    pub fn open(path: &Path, command: &str) -> Result<Self, EvalError> {
        let exists = check_header(path)?;
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        if !exists {
            flags |= OpenFlags::SQLITE_OPEN_CREATE;
        }
        let failed = |error| failure(path, error);
        let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.busy_timeout(Duration::from_secs(30)).map_err(failed)?;
        let mut results = Results { connection, path: path.to_owned(), command: command.to_owned() };
        results.check_or_make()?;
        Ok(results)
    }

    /// Opens a results file that must be there.
    ///
    /// # Errors
    /// As [`Results::open`], and when there is no such file.
    pub fn open_existing(path: &Path) -> Result<Self, EvalError> {
        if !path.is_file() {
            let reason = if path.exists() { "no file of results" } else { "there is no such file" };
            return Err(EvalError::Results {
                path: path.to_owned(),
                reason: format!("{reason}: name one that `sketchkv experiment` wrote"),
            });
        }
        Results::open(path, "")
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn check_or_make(&mut self) -> Result<(), EvalError> {
        let path = self.path.clone();
        let failed = |error| failure(&path, error);
        let number = |connection: &Connection, pragma: &str| {
            connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i32>(0))
        };
        // Two processes may come upon an empty file at once: the first makes the tables, the second finds them.
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let tables: i64 = transaction
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(failed)?;
        let empty = tables == 0 && number(&transaction, "user_version").map_err(failed)? == 0;
        if empty {
            transaction.execute_batch(SCHEMA).map_err(failed)?;
            transaction.pragma_update(None, "application_id", APPLICATION).map_err(failed)?;
            transaction.pragma_update(None, "user_version", LAYOUT).map_err(failed)?;
        }
        let application = number(&transaction, "application_id").map_err(failed)?;
        if application == APPLICATION && number(&transaction, "user_version").map_err(failed)? == 1 {
            transaction.execute_batch(FROM_LAYOUT_1).map_err(failed)?;
            transaction.pragma_update(None, "user_version", LAYOUT).map_err(failed)?;
        }
        let layout = number(&transaction, "user_version").map_err(failed)?;
        transaction.commit().map_err(failed)?;
        let refuse = |reason: &str| Err(EvalError::Results { path: path.clone(), reason: reason.to_owned() });
        if application != APPLICATION {
            return refuse("a database of another program; it is left as it is: name another file");
        }
        if layout != LAYOUT {
            return refuse(
                "written by another version of this program; it is left as it is: name another file",
            );
        }
        let check: String =
            self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
        if check != "ok" {
            return Err(damaged(&path, &check));
        }
        self.connection
            .query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0))
            .map_err(failed)?;
        // A finished cell is on the disk before the next begins.
        self.connection.pragma_update(None, "synchronous", "FULL").map_err(failed)
    }

    /// Takes `cell` for this process, unless it came to an end or another living process has it. A cell that failed is
    /// taken again only if `retry_failed`.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn claim(&mut self, cell: &Cell, retry_failed: bool) -> Result<Claim, EvalError> {
        let path = self.path.clone();
        let failed = |error| failure(&path, error);
        let (key, now, me) = (cell.key(), seconds_now(), owner::this());
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let found: Option<(String, String, i64)> = transaction
            .query_row("SELECT state, owner, started_at FROM cells WHERE key = ?1", [&key], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .optional()
            .map_err(failed)?;
        match found {
            Some((state, _, _)) if state == "done" || state == "failed" && !retry_failed => {
                let sql = format!("SELECT {COLUMNS} FROM cells WHERE key = ?1");
                let finished = transaction.query_row(&sql, [&key], finished).map_err(failed)?;
                return Ok(Claim::Finished(Box::new(finished)));
            }
            Some((state, owner, since))
                if state == "running" && owner != me && owner::is_alive(&owner, now - since) =>
            {
                return Ok(Claim::Taken);
            }
            _ => {}
        }
        transaction
            .execute(
                "INSERT OR REPLACE INTO cells (key, experiment, model, model_hash, spec, context, text, text_hash, \
                 seed, settings, state, owner, version, machine, command, started_at, name) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 'running', ?11, ?12, ?13, ?14, ?15, ?16)",
                params![
                    key,
                    cell.experiment,
                    cell.model,
                    cell.model_hash,
                    cell.spec,
                    cell.context as i64,
                    cell.text,
                    cell.text_hash,
                    // SQLite's integers are signed; the bits come back the same.
                    cell.seed.cast_signed(),
                    Value::Object(cell.settings.clone()).to_string(),
                    me,
                    env!("CARGO_PKG_VERSION"),
                    serde_json::json!(Machine::this()).to_string(),
                    self.command,
                    now,
                    cell.name,
                ],
            )
            .map_err(failed)?;
        transaction.commit().map_err(failed)?;
        Ok(Claim::Mine)
    }

    /// Stores what was measured of a cell that this process claimed.
    ///
    /// # Errors
    /// When the file cannot be written; everything stored before is intact.
    pub fn finish(&mut self, cell: &Cell, measured: &Value, took: Duration) -> Result<(), EvalError> {
        self.end(cell, "done", took, Some(measured.to_string()), None)
    }

    /// Stores why a cell that this process claimed cannot be measured.
    ///
    /// # Errors
    /// As [`Results::finish`].
    pub fn fail(&mut self, cell: &Cell, reason: &str, took: Duration) -> Result<(), EvalError> {
        self.end(cell, "failed", took, None, Some(reason))
    }

    fn end(
        &mut self,
        cell: &Cell,
        state: &str,
        took: Duration,
        measured: Option<String>,
        error: Option<&str>,
    ) -> Result<(), EvalError> {
        let changed = self.connection.execute(
            "UPDATE cells SET state = ?2, duration_s = ?3, measured = ?4, error = ?5 \
             WHERE key = ?1 AND owner = ?6",
            params![cell.key(), state, took.as_secs_f64(), measured, error, owner::this()],
        );
        match changed.map_err(|error| failure(&self.path, error))? {
            0 => Err(EvalError::Results {
                path: self.path.clone(),
                reason: format!("the cell of `{}` is no longer this process's", cell.spec),
            }),
            _ => Ok(()),
        }
    }

    /// All cells that are done or failed, in the order they began.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn finished(&self) -> Result<Vec<Finished>, EvalError> {
        let sql = format!("SELECT {COLUMNS} FROM cells WHERE state <> 'running' ORDER BY started_at, key");
        let read = || -> rusqlite::Result<Vec<Finished>> {
            self.connection.prepare(&sql)?.query_map([], finished)?.collect()
        };
        read().map_err(|error| failure(&self.path, error))
    }

    /// How many cells are running, done and failed.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn counts(&self) -> Result<[usize; 3], EvalError> {
        let count = |state: &str| {
            self.connection
                .query_row("SELECT count(*) FROM cells WHERE state = ?1", [state], |row| row.get::<_, i64>(0))
                .map(|count| count as usize)
        };
        let read = || Ok([count("running")?, count("done")?, count("failed")?]);
        read().map_err(|error| failure(&self.path, error))
    }

    /// Takes over the cells of the results file at `from` that are done and not done here, and those that failed and are
    /// not known here, all or none.
    ///
    /// # Errors
    /// When either file cannot be used.
    pub fn merge(&mut self, from: &Path) -> Result<Merged, EvalError> {
        let other = Results::open_existing(from)?;
        let sql = "SELECT key, experiment, model, model_hash, spec, context, text, text_hash, seed, settings, state, \
                   owner, version, machine, command, started_at, duration_s, measured, error, name \
                   FROM cells WHERE state <> 'running'";
        let read = || -> rusqlite::Result<Vec<Vec<rusqlite::types::Value>>> {
            let mut statement = other.connection.prepare(sql)?;
            let columns = statement.column_count();
            statement.query_map([], |row| (0..columns).map(|i| row.get(i)).collect())?.collect()
        };
        let rows = read().map_err(|error| failure(from, error))?;
        let path = self.path.clone();
        let failed = |error| failure(&path, error);
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let mut merged = Merged::default();
        for row in rows {
            let added = transaction
                .execute(
                    "INSERT INTO cells (key, experiment, model, model_hash, spec, context, text, text_hash, seed, \
                     settings, state, owner, version, machine, command, started_at, duration_s, measured, error, name) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, \
                     ?20) ON CONFLICT (key) DO UPDATE SET state = excluded.state, owner = excluded.owner, \
                     version = excluded.version, machine = excluded.machine, command = excluded.command, \
                     started_at = excluded.started_at, duration_s = excluded.duration_s, \
                     measured = excluded.measured, error = excluded.error, name = excluded.name \
                     WHERE cells.state <> 'done' AND excluded.state = 'done'",
                    rusqlite::params_from_iter(row),
                )
                .map_err(failed)?;
            merged.added += added;
            merged.known += 1 - added.min(1);
        }
        transaction.commit().map_err(failed)?;
        Ok(merged)
    }

    #[cfg(test)]
    pub(crate) fn limit_pages(&self, pages: usize) {
        self.connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
    }
}

fn finished(row: &Row<'_>) -> rusqlite::Result<Finished> {
    let json = |index: usize| -> rusqlite::Result<Value> {
        let text: Option<String> = row.get(index)?;
        serde_json::from_str(text.as_deref().unwrap_or("null")).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, Box::new(error))
        })
    };
    let text = |index: usize| row.get::<_, String>(index);
    Ok(Finished {
        key: text(0)?,
        cell: Cell {
            experiment: text(1)?,
            model: text(2)?,
            model_hash: text(3)?,
            name: row.get(18)?,
            spec: text(4)?,
            context: row.get::<_, i64>(5)? as usize,
            text: text(6)?,
            text_hash: text(7)?,
            seed: row.get::<_, i64>(8)?.cast_unsigned(),
            settings: json(9)?.as_object().cloned().unwrap_or_default(),
        },
        state: if text(10)? == "done" { State::Done } else { State::Failed },
        version: text(11)?,
        machine: serde_json::from_value(json(12)?).unwrap_or_else(|_| Machine {
            cpu: String::new(),
            cores: 0,
            memory_bytes: 0,
            os: String::new(),
            arch: String::new(),
        }),
        command: text(13)?,
        started_at: row.get(14)?,
        duration_s: row.get::<_, Option<f64>>(15)?.unwrap_or(0.0),
        measured: json(16)?,
        error: row.get(17)?,
    })
}

/// Whether there is something at `path` already; an error when it is no SQLite file.
fn check_header(path: &Path) -> Result<bool, EvalError> {
    const MAGIC: &[u8; 16] = b"SQLite format 3\0";
    // A pipe would wait to be opened until somebody writes to it.
    if path.metadata().is_ok_and(|found| !found.is_file()) {
        let reason = "no file of results: name another".to_owned();
        return Err(EvalError::Results { path: path.to_owned(), reason });
    }
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(EvalError::File { path: path.to_owned(), source }),
    };
    let mut head = Vec::new();
    (&mut file)
        .take(MAGIC.len() as u64)
        .read_to_end(&mut head)
        .map_err(|source| EvalError::File { path: path.to_owned(), source })?;
    if !head.is_empty() && head != MAGIC {
        return Err(damaged(path, "its first bytes are not those of a results file"));
    }
    Ok(true)
}

fn damaged(path: &Path, what: &str) -> EvalError {
    EvalError::Results {
        path: path.to_owned(),
        reason: format!(
            "damaged or not a results file ({what}); it is left as it is: restore it or name another file"
        ),
    }
}

fn failure(path: &Path, error: rusqlite::Error) -> EvalError {
    let reason = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => {
            "the disk is full; all finished cells are kept: free space and run the same command again"
                .to_owned()
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            return damaged(path, &error.to_string());
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another process has held it for 30 seconds; run the same command again".to_owned()
        }
        Some(ErrorCode::CannotOpen) => "cannot be opened or made there; check the folder".to_owned(),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            "cannot be written; check its permissions and those of its folder".to_owned()
        }
        _ => error.to_string(),
    };
    EvalError::Results { path: path.to_owned(), reason }
}

fn seconds_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs().cast_signed())
}
