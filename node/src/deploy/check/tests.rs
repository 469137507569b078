//! Every problem that a check finds, as a person sees it.
