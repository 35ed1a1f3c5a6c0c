//! `where`: whatever a client writes becomes one SQL expression or an error, and can be asked of any row.

use crate::sample;
use crate::split;
use lockstep_core::change::Value;
use lockstep_core::shape::Predicate;
use serde_json::Value as Json;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

/// The text, then after U+0001 texts that are parameters and the row's values.
pub fn run(data: &[u8]) {
    let (how, rest) = split(data);
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let mut parts = text.split('\u{1}');
    let text = parts.next().unwrap_or_default();
    let values: Vec<&str> = parts.collect();
    let parameters: Vec<Json> = values.iter().map(|v| Json::from(*v)).collect();
    let catalog = sample::catalog();
    let table = catalog.table(sample::TABLE).unwrap();
    let Ok(predicate) = Predicate::resolve(text, &parameters, table) else { return };
    let value = |i: usize| match (values.get(i), how & (1 << i) == 0) {
        (Some(v), true) => Value::Text((*v).into()),
        (Some(_), false) => Value::Unchanged,
        (None, _) => Value::Null,
    };
    let row: Vec<Value> = (0..table.columns.len()).map(value).collect();
    let truth = predicate.truth(table, &row);
    let nulls = vec![Value::Null; table.columns.len()];
    assert!(predicate.truth(table, &nulls).is_ok(), "all is told of NULLs: {text:?}");
    // The same again is the same predicate.
    let again = predicate.again(table).unwrap();
    assert_eq!(again.sql(), predicate.sql());
    assert_eq!(again.truth(table, &row), truth);
    one_expression(predicate.sql());
    let (equalities, whole) = predicate.equalities();
    let mut equal = row.clone();
    for (column, wanted) in &equalities {
        equal[*column] = Value::Text(wanted.clone());
    }
    if whole {
        let all = equalities.iter().all(|(column, wanted)| equal[*column].text() == Some(&**wanted));
        assert_eq!(predicate.passes(table, &equal), Ok(all), "{text:?} asks for more than {equalities:?}");
    }
    for (column, wanted) in equalities {
        let mut other = row.clone();
        other[column] = Value::Text(format!("{wanted}?").into());
        assert_ne!(predicate.passes(table, &other), Ok(true), "{text:?} passes without {wanted:?}");
    }
}

/// Nothing that a client writes ends the expression and begins something else.
fn one_expression(sql: &str) {
    let mut parser = Parser::new(&PostgreSqlDialect {}).try_with_sql(sql).unwrap();
    match parser.parse_expr() {
        Ok(_) => assert_eq!(parser.peek_token().token, Token::EOF, "{sql}"),
        Err(ParserError::RecursionLimitExceeded) => {}
        Err(error) => panic!("{sql}: {error}"),
    }
}
