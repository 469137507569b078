//! The forms of a union, each with a name and told apart by its tag, as generators of clients want them: one that finds a form
//! written out in the union leaves out the union, and with it every answer that has one.

use std::collections::BTreeMap;

use utoipa::openapi::schema::{Discriminator, OneOf, Schema};
use utoipa::openapi::{Object, Ref, RefOr};

/// The fields by which serde tells the forms of a union apart here.
const TAGS: [&str; 5] = ["event", "role", "type", "by", "state"];

/// Gives each form of each tagged union a name of its own among the schemas, and has the union name its tag.
pub fn name_forms(document: &mut utoipa::openapi::OpenApi) {
    let Some(components) = document.components.as_mut() else { return };
    let mut named = BTreeMap::new();
    for (union, schema) in &mut components.schemas {
        let RefOr::T(Schema::OneOf(forms)) = schema else { continue };
        let Some((tag, values)) = tag_of(forms) else { continue };
        let mut mapping = Vec::new();
        for (form, value) in forms.items.iter_mut().zip(values) {
            let name = format!("{union}{}", camel(&value));
            let reference = Ref::from_schema_name(&name);
            mapping.push((value, reference.ref_location.clone()));
            named.insert(name, std::mem::replace(form, RefOr::Ref(reference)));
        }
        forms.discriminator = Some(Discriminator::with_mapping(tag, mapping));
    }
    components.schemas.extend(named);
}

/// The tag of a union, and its value in each form; nothing where the forms are not all written out with one tag.
fn tag_of(union: &OneOf) -> Option<(&'static str, Vec<String>)> {
    TAGS.into_iter().find_map(|tag| {
        let values: Option<Vec<String>> = union.items.iter().map(|form| value_of(form, tag)).collect();
        Some((tag, values?))
    })
}

/// The one value that a form's tag may have.
fn value_of(form: &RefOr<Schema>, tag: &str) -> Option<String> {
    let RefOr::T(form) = form else { return None };
    match form {
        Schema::Object(object) => value_in(object, tag),
        Schema::AllOf(parts) => parts.items.iter().find_map(|part| value_of(part, tag)),
        _ => None,
    }
}

fn value_in(object: &Object, tag: &str) -> Option<String> {
    let RefOr::T(Schema::Object(property)) = object.properties.get(tag)? else { return None };
    match property.enum_values.as_deref() {
        Some([value]) => value.as_str().map(str::to_owned),
        Some(_) | None => None,
    }
}

/// `model_asked` as `ModelAsked`.
fn camel(value: &str) -> String {
    let words = value.split(['_', '-']).map(|word| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
    });
    words.collect()
}
