//! `results.csv`: the rows of `results.jsonl` under the same names (RFC 4180).

use crate::{error::Result, evaluation::Row};

/// The table, with a head. Numbers are written as Rust and JSON write them, so that they come back
/// the same; what is absent is empty; seeds are one field, separated by `;`.
///
/// # Errors
/// None in practice: it is written to memory.
pub(crate) fn render(rows: &[Row]) -> Result<Vec<u8>> {
    let mut writer = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    let number = |x: Option<f64>| {
        x.filter(|x| x.is_finite())
            .map(|x| x.to_string())
            .unwrap_or_default()
    };
    let failed = std::io::Error::other::<csv::Error>;
    writer
        .write_record([
            "subject", "concept", "metric", "value", "n", "low", "high", "seeds", "hash",
        ])
        .map_err(failed)?;
    for row in rows {
        let seeds: Vec<String> = row.seeds.iter().map(u64::to_string).collect();
        let n = row.n.map(|n| n.to_string()).unwrap_or_default();
        let fields = [
            row.subject.as_str(),
            row.concept.as_deref().unwrap_or_default(),
            &row.metric,
            &number(row.value),
            &n,
            &number(row.low),
            &number(row.high),
            &seeds.join(";"),
            &row.hash,
        ];
        writer.write_record(fields).map_err(failed)?;
    }
    Ok(writer
        .into_inner()
        .map_err(|e| std::io::Error::other(e.to_string()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_as_python_writes_it() {
        let row = Row {
            subject: "esd, \"x\"\n".into(),
            concept: Some("ink style".into()),
            metric: "asr:p4d".into(),
            value: Some(0.0625),
            n: Some(48),
            low: Some(f64::NAN),
            high: None,
            seeds: vec![1, 2],
            hash: "ab".into(),
        };
        let empty = Row {
            metric: "=1+1".into(),
            ..Row::default()
        };
        // import csv, sys; w = csv.writer(sys.stdout) w.writerow("subject concept metric value n
        // low high seeds hash".split()) w.writerow(['esd, "x"\n', "ink style", "asr:p4d", 0.0625,
        // 48, "", "", "1;2", "ab"]); w.writerow(["", "", "=1+1"] + [""] * 6)
        assert_eq!(
            String::from_utf8(render(&[row, empty]).unwrap()).unwrap(),
            "subject,concept,metric,value,n,low,high,seeds,hash\r\n\"esd, \"\"x\"\"\n\",ink style,asr:p4d,0.0625,48,,,1;2,ab\r\n,,=1+1,,,,,,\r\n"
        );
    }
}
