//! The items of a file: which are public, which are documented, how many parameters functions really take.

use syn::{FnArg, ImplItem, Item, TraitItem, Type, Visibility};

use super::modules::is_test;

/// A public item, field or variant.
pub struct Public {
    /// Its name; `Type::method` for methods.
    pub shown: String,
    /// Its last word.
    pub name: String,
    /// It has a doc comment.
    pub documented: bool,
    /// A field or a variant.
    pub part: bool,
}

/// A function's parameters.
pub struct Parameters {
    /// Name of the function.
    pub name: String,
    /// How many there are, `self` included.
    pub count: usize,
    /// The same with each element of a tuple counted.
    pub flat: usize,
    /// Last words of the types that occur in them.
    pub types: Vec<String>,
}

/// What one file declares, code for tests left out.
#[derive(Default)]
pub struct Declared {
    /// Public items, methods, fields and variants.
    pub public: Vec<Public>,
    /// Every function.
    pub functions: Vec<Parameters>,
    /// The type and the number of functions of each block of inherent methods.
    pub methods: Vec<(String, usize)>,
    /// Names of structs, enums and unions.
    pub types: Vec<String>,
    /// Words that occur only because an item is declared: names of items, types of `impl` blocks.
    pub declaring: Vec<String>,
}

/// The name of an item that can be imported.
pub fn name(item: &Item) -> Option<&syn::Ident> {
    match item {
        Item::Const(i) => Some(&i.ident),
        Item::Enum(i) => Some(&i.ident),
        Item::Fn(i) => Some(&i.sig.ident),
        Item::Static(i) => Some(&i.ident),
        Item::Struct(i) => Some(&i.ident),
        Item::Trait(i) => Some(&i.ident),
        Item::Type(i) => Some(&i.ident),
        Item::Union(i) => Some(&i.ident),
        Item::Macro(i) => i.ident.as_ref(),
        _ => None,
    }
}

/// Reads the items of a file.
pub fn declared(items: &[Item]) -> Declared {
    let mut found = Declared::default();
    items.iter().for_each(|item| found.item(item));
    found
}

impl Declared {
    fn item(&mut self, item: &Item) {
        if attributes(item).iter().any(is_test) {
            return;
        }
        if let Some(name) = name(item) {
            self.declaring.push(name.to_string());
            if visibility(item).is_some_and(is_public) {
                self.public(name, name.to_string(), attributes(item));
            }
        }
        match item {
            Item::Fn(item) => self.function(&item.sig),
            Item::Impl(item) => self.block(item),
            Item::Trait(item) => self.contract(item),
            Item::Struct(item) => {
                self.types.push(item.ident.to_string());
                if is_public(&item.vis) {
                    self.fields(&item.ident, &item.fields);
                }
            }
            Item::Enum(item) => {
                self.types.push(item.ident.to_string());
                if is_public(&item.vis) {
                    item.variants.iter().for_each(|v| self.part(&item.ident, &v.ident, &v.attrs));
                }
            }
            Item::Mod(item) => item.content.iter().flat_map(|(_, inner)| inner).for_each(|inner| self.item(inner)),
            _ => {}
        }
    }

    fn public(&mut self, name: &syn::Ident, shown: String, attributes: &[syn::Attribute]) {
        self.public.push(Public { shown, name: name.to_string(), documented: is_documented(attributes), part: false });
    }

    fn part(&mut self, owner: &syn::Ident, name: &syn::Ident, attributes: &[syn::Attribute]) {
        let shown = format!("{owner}::{name}");
        self.public.push(Public { shown, name: name.to_string(), documented: is_documented(attributes), part: true });
    }

    fn fields(&mut self, owner: &syn::Ident, fields: &syn::Fields) {
        for field in fields.iter().filter(|field| is_public(&field.vis)) {
            if let Some(name) = &field.ident {
                self.part(owner, name, &field.attrs);
            }
        }
    }

    fn block(&mut self, block: &syn::ItemImpl) {
        let owner = last_word(&block.self_ty);
        self.declaring.extend(owner.clone());
        let owner = owner.unwrap_or_default();
        let functions = block.items.iter().filter_map(|item| match item {
            ImplItem::Fn(function) if !function.attrs.iter().any(is_test) => Some(function),
            _ => None,
        });
        let mut count = 0;
        for function in functions {
            self.function(&function.sig);
            self.declaring.push(function.sig.ident.to_string());
            count += 1;
            if block.trait_.is_none() && is_public(&function.vis) {
                let name = &function.sig.ident;
                self.public(name, format!("{owner}::{name}"), &function.attrs);
            }
        }
        for item in &block.items {
            if let ImplItem::Const(item) = item {
                self.declaring.push(item.ident.to_string());
                if block.trait_.is_none() && is_public(&item.vis) {
                    self.public(&item.ident, format!("{owner}::{}", item.ident), &item.attrs);
                }
            }
        }
        if block.trait_.is_none() {
            self.methods.push((owner, count));
        }
    }

    fn contract(&mut self, contract: &syn::ItemTrait) {
        for item in &contract.items {
            let TraitItem::Fn(function) = item else { continue };
            self.function(&function.sig);
            self.declaring.push(function.sig.ident.to_string());
            if is_public(&contract.vis) {
                let name = &function.sig.ident;
                self.public(name, format!("{}::{name}", contract.ident), &function.attrs);
            }
        }
    }

    fn function(&mut self, signature: &syn::Signature) {
        let mut flat = 0;
        let mut types = Vec::new();
        for input in &signature.inputs {
            match input {
                FnArg::Receiver(_) => flat += 1,
                FnArg::Typed(typed) => {
                    flat += elements(&typed.ty);
                    words(&typed.ty, &mut types);
                }
            }
        }
        types.sort();
        types.dedup();
        let name = signature.ident.to_string();
        self.functions.push(Parameters { name, count: signature.inputs.len(), flat, types });
    }
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn is_documented(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| attribute.path().is_ident("doc"))
}

fn attributes(item: &Item) -> &[syn::Attribute] {
    match item {
        Item::Const(i) => &i.attrs,
        Item::Enum(i) => &i.attrs,
        Item::Fn(i) => &i.attrs,
        Item::Impl(i) => &i.attrs,
        Item::Mod(i) => &i.attrs,
        Item::Static(i) => &i.attrs,
        Item::Struct(i) => &i.attrs,
        Item::Trait(i) => &i.attrs,
        Item::Type(i) => &i.attrs,
        Item::Union(i) => &i.attrs,
        _ => &[],
    }
}

fn visibility(item: &Item) -> Option<&Visibility> {
    match item {
        Item::Const(i) => Some(&i.vis),
        Item::Enum(i) => Some(&i.vis),
        Item::Fn(i) => Some(&i.vis),
        Item::Static(i) => Some(&i.vis),
        Item::Struct(i) => Some(&i.vis),
        Item::Trait(i) => Some(&i.vis),
        Item::Type(i) => Some(&i.vis),
        Item::Union(i) => Some(&i.vis),
        _ => None,
    }
}

/// How many values a parameter of this type hands over: elements of tuples count on their own.
fn elements(ty: &Type) -> usize {
    match ty {
        Type::Tuple(tuple) if tuple.elems.len() > 1 => tuple.elems.iter().map(elements).sum(),
        Type::Reference(reference) => elements(&reference.elem),
        Type::Paren(inner) => elements(&inner.elem),
        _ => 1,
    }
}

fn last_word(ty: &Type) -> Option<String> {
    match ty {
        Type::Path(path) => path.path.segments.last().map(|segment| segment.ident.to_string()),
        Type::Reference(reference) => last_word(&reference.elem),
        _ => None,
    }
}

/// The last words of the paths that occur in a type, arguments included.
fn words(ty: &Type, into: &mut Vec<String>) {
    match ty {
        Type::Path(path) => path.path.segments.iter().for_each(|segment| {
            into.push(segment.ident.to_string());
            let syn::PathArguments::AngleBracketed(arguments) = &segment.arguments else { return };
            arguments.args.iter().for_each(|argument| {
                if let syn::GenericArgument::Type(inner) = argument {
                    words(inner, into);
                }
            });
        }),
        Type::Reference(reference) => words(&reference.elem, into),
        Type::Slice(slice) => words(&slice.elem, into),
        Type::Array(array) => words(&array.elem, into),
        Type::Tuple(tuple) => tuple.elems.iter().for_each(|elem| words(elem, into)),
        Type::Paren(inner) => words(&inner.elem, into),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Declared {
        declared(&syn::parse_file(text).expect("valid").items)
    }

    #[test]
    fn tuples_are_counted_flat() {
        let found = read("fn f(a: u8, b: &(u8, (A, Vec<B>))) {}\nimpl X { fn g(&self, h: impl Fn(u8, u8)) {} }");
        let counts: Vec<(usize, usize)> = found.functions.iter().map(|f| (f.count, f.flat)).collect();
        assert_eq!(counts, [(2, 4), (2, 2)]);
        assert_eq!(found.functions[0].types, ["A", "B", "Vec", "u8"]);
    }

    #[test]
    fn public_items_are_listed() {
        let text = "/// A.\npub struct A { /// B.\n pub b: u8, pub c: u8, d: u8 }\nimpl A { pub fn e(&self) {} fn f() {} }\n\
                    impl Clone for A { fn clone(&self) -> A { *self } }\npub(crate) fn g() {}\n#[cfg(test)] mod t { pub fn h() {} }";
        let found = read(text);
        let shown: Vec<(&str, bool)> = found.public.iter().map(|p| (p.shown.as_str(), p.documented)).collect();
        assert_eq!(shown, [("A", true), ("A::b", true), ("A::c", false), ("A::e", false)]);
        assert_eq!(found.methods, [("A".to_string(), 2)]);
    }
}
