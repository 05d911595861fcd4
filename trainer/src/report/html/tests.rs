use super::*;
use crate::report::samples;

/// All pages that the tests below look at.
fn pages() -> Vec<String> {
    let sets = [
        samples::five(),
        vec![samples::kd()],
        vec![samples::failed()],
        samples::twelve(),
        vec![samples::huge(), samples::kd()],
        vec![samples::hostile()],
        Vec::new(),
    ];
    sets.iter().map(|reports| comparison(reports)).collect()
}

#[test]
fn a_page_needs_no_network_and_no_script() {
    for page in pages() {
        for outside in ["http:", "https:", "//", "<script", "<link", "@import", "url(", "<img", "<iframe"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}

#[test]
fn every_text_of_a_report_is_escaped() {
    let page = comparison(&[samples::hostile(), samples::kd()]);
    // The template writes no script, so every one would come from the report.
    assert!(!page.contains("<script") && !page.contains("alert('x')"));
    // Name, experiment, sentence, spec, hash, device, labels, clients and absences.
    assert!(page.matches("&lt;script&gt;").count() >= 12, "{}", page.matches("&lt;script&gt;").count());
}

#[test]
fn every_element_that_is_opened_is_closed() {
    for page in pages() {
        for element in
            ["svg", "table", "tr", "td", "th", "figure", "section", "details", "ul", "li", "p", "div", "text"]
        {
            let opened = page.matches(&format!("<{element} ")).count() + page.matches(&format!("<{element}>")).count();
            let closed = page.matches(&format!("</{element}>")).count();
            assert_eq!(opened, closed, "{element}");
        }
    }
}

#[test]
fn no_coordinate_is_missing_or_not_a_number() {
    for page in pages() {
        for broken in ["NaN", "inf\"", "=\"\" y", "null", "undefined"] {
            assert!(!page.contains(broken), "{broken}");
        }
    }
}

#[test]
fn ids_are_unique_and_every_picture_has_title_and_description() {
    let page = comparison(&samples::five());
    let ids: Vec<&str> = page.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(distinct(ids.iter()).len(), ids.len());
    let pictures = page.matches("role=\"img\"").count();
    // Overview, two by round, two by cost, kinds.
    assert_eq!(pictures, 6);
    assert_eq!(page.matches("<desc id=").count(), pictures);
}

#[test]
fn the_page_says_who_is_best_and_shows_every_run() {
    let page = comparison(&samples::five());
    assert!(page.replace('\u{a0}', " ").contains("Split-FedLLM is most accurate (87.0 %), KD-FedLLM exchanges"));
    for text in
        ["mail-fedllm", "mail-kd", "mail-split", "mail-central", "mail-local", "worst client: 58.0 % (silo-a&#x2f;1)"]
    {
        assert!(page.contains(text), "{text}");
    }
    assert!(page.contains("Guessing the most frequent label reaches 68.6 %"));
    assert!(page.contains("localSteps: 8"));
}

#[test]
fn a_failed_run_is_shown_with_its_sentence_and_without_scores() {
    let page = comparison(&[samples::failed(), samples::kd()]);
    assert!(page.contains("failed before its first round was done: the loss of client silo-a&#x2f;1 is not a number"));
    let row = page.split("<tr").find(|row| row.contains("mail-broken") && row.contains("class=\"bad\"")).unwrap();
    assert_eq!(row.matches("<td>–</td>").count(), 5, "{row}");
}

#[test]
fn runs_that_share_a_name_are_told_apart() {
    let mut again = samples::kd();
    again.seed = 43;
    let page = comparison(&[samples::kd(), again.clone(), again]);
    for label in ["mail-kd seed 42", "mail-kd seed 43 (1)", "mail-kd seed 43 (2)"] {
        assert!(page.contains(label), "{label}");
    }
}

#[test]
fn twelve_runs_have_twelve_looks() {
    let reports = samples::twelve();
    let ordered = measures::in_reading_order(&reports);
    let runs = styled(&ordered, &measures::labels(&ordered));
    let looks = runs.iter().map(|run| (run.style.shape as u8, run.style.class.contains("hollow")));
    assert_eq!(distinct(looks).len(), 12);
}

#[test]
fn a_value_that_all_runs_share_is_stated_once() {
    let page = comparison(&samples::five());
    assert_eq!(page.matches(&"5d".repeat(32)).count(), 1);
    assert!(page.contains("all runs"));
}

#[test]
fn an_absent_client_is_named_with_its_rounds_and_reason() {
    let mut report = samples::fedllm();
    for round in &mut report.rounds[1..] {
        let absence =
            fedtune_crds::report::Absence { client: "silo-b/1".into(), reason: "its upload came late".into() };
        round.absent.push(absence);
    }
    let page = comparison(&[report]);
    assert!(page.contains("silo-b&#x2f;1 missed rounds 2, 3: its upload came late"));
}
