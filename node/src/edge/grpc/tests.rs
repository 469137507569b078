//! The published files and the routes agree, and each code has a status.

use std::collections::BTreeSet;

use axum::body::Body;
use caxton_proto::v1::DESCRIPTORS;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::{Code as StatusCode, Status};
use tonic_types::StatusExt;

use super::*;
use crate::edge::problem::Code;

/// The paths of all methods in encoded descriptors.
fn methods(descriptors: &[u8]) -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(descriptors).expect("descriptors");
    let of = |file: &prost_types::FileDescriptorProto| {
        let package = file.package().to_owned();
        let paths = file.service.iter().flat_map(move |service| {
            let prefix = format!("/{package}.{}", service.name());
            service.method.iter().map(move |method| format!("{prefix}/{}", method.name())).collect::<Vec<_>>()
        });
        paths.collect::<Vec<_>>()
    };
    set.file.iter().flat_map(of).collect()
}

#[test]
fn every_published_method_has_a_route_and_the_other_way_round() {
    let (_, table) = routes().into_parts();
    let routed: BTreeSet<String> = table.all().map(|route| route.path.to_owned()).collect();
    let mut published = methods(DESCRIPTORS);
    assert!(published.len() >= 19, "{published:?}");
    published.extend(methods(tonic_health::pb::FILE_DESCRIPTOR_SET));
    published
        .extend(["v1", "v1alpha"].map(|it| format!("/grpc.reflection.{it}.ServerReflection/ServerReflectionInfo")));
    assert_eq!(routed, published);
    assert_eq!(health::services_of(DESCRIPTORS).len(), 4);
}

#[test]
fn everything_published_has_a_comment() {
    let set = FileDescriptorSet::decode(DESCRIPTORS).expect("descriptors");
    for file in set.file.iter().filter(|file| file.package() == "caxton.v1") {
        let places = file.source_code_info.iter().flat_map(|info| &info.location);
        // Messages, enums, services and what is in them stand at paths of an even length.
        let bare: Vec<_> = places
            .filter(|it| it.path.len() % 2 == 0 && [Some(&4), Some(&5), Some(&6)].contains(&it.path.first()))
            .filter(|it| it.leading_comments().trim().is_empty())
            .map(|it| it.path.clone())
            .collect();
        assert!(bare.is_empty(), "{}: {bare:?}", file.name());
    }
}

#[test]
fn each_code_has_a_status_whose_details_name_it() {
    for code in Code::ALL {
        let problem = Problem::new(code, "what happened: \u{fc}").help("what to do").with("param", "x").retry_after(3);
        let status = status::of(&problem, Some("r1"));
        assert!(![StatusCode::Ok, StatusCode::Cancelled].contains(&status.code()), "{}", code.name());
        let response: http::Response<Body> = error(&problem, "r1");
        assert_eq!(response.status(), 200);
        let read = Status::from_header_map(response.headers()).expect("a status");
        assert_eq!((read.code(), read.message()), (status.code(), "what happened: \u{fc}"));
        let details = read.get_error_details();
        let info = details.error_info().expect("it is said which code");
        assert_eq!((info.reason.to_lowercase().as_str(), info.domain.as_str()), (code.name(), "caxton"));
        assert_eq!((info.metadata["help"].as_str(), info.metadata["param"].as_str()), ("what to do", "x"));
        assert_eq!(details.retry_info().and_then(|it| it.retry_delay), Some(std::time::Duration::from_secs(3)));
        assert_eq!(details.request_info().map(|it| it.request_id.as_str()), Some("r1"));
    }
}
