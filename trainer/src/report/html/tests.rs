use super::*;
use crate::report::samples;

#[test]
#[ignore = "writes pages to look at"]
fn pages_to_look_at() {
    let folder = std::env::temp_dir().join("fedtune-pages");
    std::fs::create_dir_all(&folder).unwrap();
    let mut five = samples::five();
    five.push(samples::failed());
    let pages = [("five", five), ("twelve", samples::twelve()), ("one", vec![samples::kd()]), ("huge", vec![samples::huge(), samples::kd()]), ("hostile", vec![samples::hostile()]), ("none", vec![]), ("failed", vec![samples::failed()])];
    for (name, reports) in pages {
        std::fs::write(folder.join(format!("{name}.html")), comparison(&reports)).unwrap();
        println!("{}", crate::report::terminal_table(&reports, Some(100), false));
    }
}
