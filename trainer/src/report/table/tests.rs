use super::*;
use crate::report::samples;

#[test]
fn the_table_of_the_frameworks_and_baselines_is_aligned() {
    let expected = "\
Framework     Run           Accuracy  Macro-F1   Loss       Up     Down  Wire/payload  Client FLOPs  Client time    Run time
────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
FedLLM        mail-fedllm     86.4 %     0.810  0.360  4.87 MB  4.87 MB         1.010    8.40 TFLOP   4 min 09 s  2 min 07 s
KD-FedLLM     mail-kd         80.2 %     0.750  0.470  38.4 kB  38.4 kB         1.010    17.6 TFLOP   8 min 48 s  4 min 26 s
Split-FedLLM  mail-split      87.0 %     0.820  0.340   114 MB   114 MB         1.010    1.40 TFLOP   4 min 42 s  2 min 23 s
central       mail-central    88.5 %     0.840  0.310      0 B      0 B             –        0 FLOP        0.0 s  2 min 02 s
localOnly     mail-local      74.1 %     0.690  0.590      0 B      0 B             –    8.40 TFLOP   3 min 54 s  1 min 59 s
";
    assert_eq!(terminal_table(&samples::five(), None, false), expected);
}

#[test]
fn a_narrow_terminal_keeps_the_three_measures() {
    let expected = "\
Framework     Run           Accuracy   Loss       Up     Down  Client FLOPs
───────────────────────────────────────────────────────────────────────────
FedLLM        mail-fedllm     86.4 %  0.360  4.87 MB  4.87 MB    8.40 TFLOP
KD-FedLLM     mail-kd         80.2 %  0.470  38.4 kB  38.4 kB    17.6 TFLOP
Split-FedLLM  mail-split      87.0 %  0.340   114 MB   114 MB    1.40 TFLOP
central       mail-central    88.5 %  0.310      0 B      0 B        0 FLOP
localOnly     mail-local      74.1 %  0.590      0 B      0 B    8.40 TFLOP
";
    assert_eq!(terminal_table(&samples::five(), Some(80), false), expected);
}

#[test]
fn no_line_is_longer_than_the_terminal_is_wide() {
    for width in [80, 100, 120] {
        for reports in [samples::five(), samples::twelve(), vec![samples::huge(), samples::kd()]] {
            let table = terminal_table(&reports, Some(width), false);
            let longest = table.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(longest <= width, "{longest} > {width}:\n{table}");
        }
    }
}

#[test]
fn names_of_a_sweep_keep_the_end_that_tells_them_apart() {
    let table = terminal_table(&samples::twelve(), Some(70), false);
    assert!(table.contains("…") && table.contains("d-40") && table.contains("d-51"), "{table}");
}

#[test]
fn the_best_of_each_column_is_bold_and_baselines_do_not_compete() {
    let table = terminal_table(&samples::five(), None, true);
    let bold = |row: &str| -> Vec<String> {
        let row = table.lines().find(|line| line.starts_with(row)).unwrap();
        row.split(BOLD).skip(1).map(|rest| rest.split(RESET).next().unwrap().trim().to_owned()).collect()
    };
    assert_eq!(bold("Split"), ["87.0 %", "0.820", "0.340", "1.40 TFLOP"]);
    assert_eq!(bold("KD"), ["38.4 kB", "38.4 kB"]);
    assert_eq!(bold("FedLLM"), ["4 min 09 s", "2 min 07 s"]);
    assert_eq!(bold("central"), [""; 0]);
}

#[test]
fn without_colour_there_is_no_escape_code() {
    assert!(!terminal_table(&samples::five(), None, false).contains('\u{1b}'));
}

#[test]
fn a_failed_run_has_a_row_and_its_sentence_below() {
    let table = terminal_table(&[samples::failed(), samples::kd()], Some(100), false);
    assert!(table.contains("FedLLM ✗"), "{table}");
    let sentence = "\nmail-broken failed before its first round was done: the loss of client silo-a/1 is not a number in round 1\n";
    assert!(table.ends_with(sentence), "{table}");
}

#[test]
fn a_name_cannot_steer_the_terminal() {
    let mut report = samples::failed();
    report.name = "mail\u{1b}[2J\n".into();
    report.stop_reason = "\u{1b}]0;title\u{7}".into();
    assert!(!terminal_table(&[report], None, false).contains('\u{1b}'));
}

#[test]
fn no_runs_give_a_header_alone() {
    assert_eq!(terminal_table(&[], None, false).lines().count(), 2);
}
