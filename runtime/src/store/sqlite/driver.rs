//! What the statements of `store/sql` are sent through: the names of sqlx, over rusqlite.
//!
//! Nothing here waits: what a statement gives is there before its future is first asked. So a transaction of `store/sql` is run
//! from its beginning to its end by [`now`], on the thread that has the connection.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{Ready, ready};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use rusqlite::Error;
use rusqlite::types::{FromSql, ToSqlOutput, Value, ValueRef};

use crate::store::StoreError;

/// A connection for the time of one transaction.
#[derive(Debug, Clone)]
pub(super) struct Connection(Rc<rusqlite::Connection>);

impl Connection {
    pub(super) fn new(connection: rusqlite::Connection) -> Self {
        Self(Rc::new(connection))
    }

    /// Whether a transaction is open.
    pub(super) fn is_open(&self) -> bool {
        !self.0.is_autocommit()
    }

    /// How many rows it has changed since it was opened.
    pub(super) fn changes(&self) -> u64 {
        self.0.total_changes()
    }

    /// A statement without arguments and rows.
    pub(super) fn run(&self, sql: &'static str) -> Result<(), Error> {
        self.0.prepare_cached(sql)?.raw_execute()?;
        Ok(())
    }

    /// A number in the only row of a statement without arguments.
    pub(super) fn number(&self, sql: &'static str, column: usize) -> Result<i64, Error> {
        self.0.prepare_cached(sql)?.query_row((), |row| row.get(column))
    }

    /// The connection itself, unless a transaction still has it.
    pub(super) fn into_inner(self) -> Option<rusqlite::Connection> {
        Rc::into_inner(self.0)
    }
}

/// What a statement is carried out on: taken as it is, as sqlx does.
pub(super) trait Executor<'c> {
    fn connection(self) -> &'c Connection;
}

impl<'c> Executor<'c> for &'c mut Connection {
    fn connection(self) -> &'c Connection {
        self
    }
}

/// A transaction of `store/sql` waits for something that this module did not give it.
#[derive(Debug, thiserror::Error)]
#[error(
    "a transaction waits for something else than its statements, which is a bug of this program; it has changed nothing"
)]
struct Waits;

/// The end of a transaction of `store/sql` on such a connection.
pub(super) fn now<R>(transaction: impl Future<Output = Result<R, StoreError>>) -> Result<R, StoreError> {
    match pin!(transaction).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => Err(StoreError::Failed(Box::new(Waits))),
    }
}

/// One statement, or two that have one list of arguments.
pub(super) trait Sql {
    /// In their order.
    fn statements(&self) -> &[&'static str];
}

impl Sql for &'static str {
    fn statements(&self) -> &[&'static str] {
        std::slice::from_ref(self)
    }
}

impl Sql for [&'static str; 2] {
    fn statements(&self) -> &[&'static str] {
        self
    }
}

/// A statement with its arguments: `$1` is the first.
pub(super) struct Query<'q, S> {
    sql: S,
    arguments: Vec<ToSqlOutput<'q>>,
}

pub(super) fn query<'q, S: Sql>(sql: S) -> Query<'q, S> {
    Query { sql, arguments: Vec::with_capacity(8) }
}

/// What a statement has done.
pub(super) struct Done(usize);

impl Done {
    pub(super) fn rows_affected(&self) -> u64 {
        u64::try_from(self.0).unwrap_or(u64::MAX)
    }
}

impl<'q, S: Sql> Query<'q, S> {
    pub(super) fn bind(mut self, argument: impl Into<ToSqlOutput<'q>>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub(super) fn execute<'c>(self, on: impl Executor<'c>) -> Ready<Result<Done, Error>> {
        ready(self.done(on.connection()).map(Done))
    }

    pub(super) fn fetch_optional<'c>(self, on: impl Executor<'c>) -> Ready<Result<Option<Row>, Error>> {
        ready(self.rows(on.connection()).map(|mut rows| rows.drain(..).next()))
    }

    pub(super) fn fetch_one<'c>(self, on: impl Executor<'c>) -> Ready<Result<Row, Error>> {
        let rows = self.rows(on.connection());
        ready(rows.and_then(|mut rows| rows.pop().ok_or(Error::QueryReturnedNoRows)))
    }

    pub(super) fn fetch_all<'c>(self, on: impl Executor<'c>) -> Ready<Result<Vec<Row>, Error>> {
        ready(self.rows(on.connection()))
    }

    /// The rows that the last statement changed.
    fn done(&self, connection: &Connection) -> Result<usize, Error> {
        let mut changed = 0;
        for sql in self.sql.statements() {
            changed = self.prepared(connection, sql)?.raw_execute()?;
        }
        Ok(changed)
    }

    fn rows(&self, connection: &Connection) -> Result<Vec<Row>, Error> {
        let mut read = Vec::new();
        for sql in self.sql.statements() {
            let mut statement = self.prepared(connection, sql)?;
            let names = names_of(sql, &statement);
            let mut rows = statement.raw_query();
            while let Some(row) = rows.next()? {
                let values = (0..names.len()).map(|at| row.get_ref(at).map(Value::try_from));
                let values = values.collect::<Result<Result<_, _>, _>>()??;
                read.push(Row { names: Rc::clone(&names), values });
            }
        }
        Ok(read)
    }

    fn prepared<'c>(
        &self,
        connection: &'c Connection,
        sql: &'static str,
    ) -> Result<rusqlite::CachedStatement<'c>, Error> {
        tracing::trace!(statement = sql);
        let mut statement = connection.0.prepare_cached(sql)?;
        for at in 1..=statement.parameter_count() {
            // SQLite numbers `$7` by where it stands first, and not by its name.
            let name = statement.parameter_name(at).unwrap_or_default();
            let number = name.strip_prefix('$').and_then(|number| number.parse::<usize>().ok());
            let argument = number.and_then(|number| self.arguments.get(number.checked_sub(1)?));
            match argument {
                Some(argument) => statement.raw_bind_parameter(at, argument)?,
                None => return Err(Error::InvalidParameterName(name.to_owned())),
            }
        }
        Ok(statement)
    }
}

thread_local! {
    /// The columns of statements that this thread has run, by where their text stands: there are as many as this program has.
    static NAMES: RefCell<HashMap<*const str, Rc<[String]>>> = RefCell::default();
}

/// What a statement calls its columns: each has a name in its text, so that equal texts have equal names.
fn names_of(sql: &'static str, statement: &rusqlite::Statement<'_>) -> Rc<[String]> {
    let named = || statement.column_names().into_iter().map(str::to_owned).collect();
    NAMES.with_borrow_mut(|known| Rc::clone(known.entry(std::ptr::from_ref(sql)).or_insert_with(named)))
}

/// A row that was read.
#[derive(Debug)]
pub(super) struct Row {
    names: Rc<[String]>,
    values: Vec<Value>,
}

/// A column, by its name or its place.
pub(super) trait Column {
    fn value(self, row: &Row) -> Result<&Value, Error>;
}

impl Column for &str {
    fn value(self, row: &Row) -> Result<&Value, Error> {
        let mut columns = row.names.iter().zip(&row.values);
        let found = columns.find_map(|(name, value)| (name == self).then_some(value));
        found.ok_or_else(|| Error::InvalidColumnName(self.to_owned()))
    }
}

impl Column for usize {
    fn value(self, row: &Row) -> Result<&Value, Error> {
        row.values.get(self).ok_or(Error::InvalidColumnIndex(self))
    }
}

/// Reads a column.
pub(super) trait Get {
    fn try_get<T: FromSql, C: Column>(&self, column: C) -> Result<T, Error>;
}

impl Get for Row {
    fn try_get<T: FromSql, C: Column>(&self, column: C) -> Result<T, Error> {
        Ok(T::column_result(ValueRef::from(column.value(self)?))?)
    }
}
