//! What must not compile: states out of turn or used twice, forged evidence, receipts by hand or of another action,
//! secrets shown or compared. The messages are committed beside the cases.

#[test]
fn what_skips_a_check_does_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
