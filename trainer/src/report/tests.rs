use super::*;

#[test]
fn a_report_is_read_back_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    for report in samples::five().into_iter().chain([samples::failed(), samples::huge(), samples::hostile()]) {
        write(&report, folder.path()).unwrap();
        assert_eq!(read(folder.path()).unwrap(), report);
        assert_eq!(read(&folder.path().join("results.json")).unwrap(), report);
    }
    let mut files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["report.html", "results.json", "rounds.csv"]);
}

/// The sentence that reading a folder with this `results.json` ends with.
fn refusal(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(RESULTS), text).unwrap();
    let sentence = read(folder.path()).unwrap_err().to_string();
    sentence.replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn a_folder_without_results_is_named() {
    let error = read(Path::new("/no/such/run")).unwrap_err().to_string();
    assert_eq!(error, "/no/such/run holds no results: expected results.json in it, or in a folder directly below it");
}

#[test]
fn results_that_are_cut_short_are_said_to_be() {
    let whole = serde_json::to_string_pretty(&samples::kd()).unwrap();
    for end in [10, whole.len() / 2, whole.len() - 2] {
        let sentence = refusal(&whole[..end]);
        assert!(sentence.starts_with("results.json is cut short: it ends at line "), "{sentence}");
    }
    assert!(refusal("").starts_with("results.json is cut short"));
}

#[test]
fn results_of_a_newer_program_ask_for_it_even_where_their_shape_is_unknown() {
    assert_eq!(
        refusal(r#"{"schemaVersion": 2, "figures": []}"#),
        "results.json has schemaVersion 2, this program reads up to 1: read it with a newer fedtune"
    );
}

#[test]
fn other_json_is_not_a_report() {
    let sentence = refusal(r#"{"name": "mail"}"#);
    assert!(
        sentence.starts_with("results.json is not the report of a run: missing field `schemaVersion`"),
        "{sentence}"
    );
    let sentence = refusal("{oops");
    assert!(sentence.starts_with("results.json is not the report of a run: key must be a string"), "{sentence}");
}

#[test]
fn the_report_command_finds_runs_in_and_below_the_folders_once_each() {
    let folder = tempfile::tempdir().unwrap();
    for report in samples::five() {
        write(&report, &folder.path().join(&report.name)).unwrap();
    }
    fs::create_dir(folder.path().join("empty")).unwrap();
    let out = folder.path().join("pages/report.html");
    let places =
        [folder.path().to_path_buf(), folder.path().join("mail-kd"), folder.path().join("mail-kd/results.json")];
    let table = report_command(&places, &out, None, false).unwrap();
    assert_eq!(table, terminal_table(&samples::five(), None, false));
    assert_eq!(fs::read_to_string(out).unwrap(), comparison(&samples::five()));
}

#[test]
fn the_report_command_names_a_folder_without_runs() {
    let folder = tempfile::tempdir().unwrap();
    let error = report_command(&[folder.path().into()], &folder.path().join("report.html"), None, false).unwrap_err();
    assert!(matches!(&error, ReportError::NoResults(place) if place == folder.path()), "{error}");
    assert!(!folder.path().join("report.html").exists());
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = folder.path().join("file");
    fs::write(&taken, "").unwrap();
    let error = write(&samples::kd(), &taken.join("run")).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot write {}/run/results.json: ", taken.display())), "{error}");
}
