//! Tables of text.

/// Rows with their columns aligned, so many blanks between them; the last column is not filled up.
pub(super) fn aligned<const N: usize>(rows: &[[String; N]], blanks: usize) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            match column + 1 == N {
                true => out.push_str(cell),
                false => out.push_str(&format!("{cell:<width$}", width = widths[column] + blanks)),
            }
        }
        out.push('\n');
    }
    out
}
