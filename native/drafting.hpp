// Drafts the tokens that are expected to follow streams, and learns from those that came.
//
// A draft comes from what followed the longest earlier occurrence of a stream's last tokens in its own text, from what
// followed in earlier texts of the same salt, or from the last successors of one or two tokens. How likely each is right
// is learned by source and length of the match. Drafts run as far as they raise the expected tokens of a step over its
// time. Nothing here changes which tokens are right.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

namespace decodery {

// Drafts of one stream in one step, at most.
constexpr int64_t kMostDrafts = 7;
// Tokens of earlier texts, and entries of the table of successors, that one salt keeps at most.
constexpr int64_t kMostTokens = 32768, kMostSuccessors = 65536;
// A longer match says no more.
constexpr int64_t kLongest = 16;

enum Source : int64_t { kText, kEarlierTexts, kSuccessors };

// A stream under a salt with its known tokens [count]; at most `most` drafts run of it.
struct DraftedRow {
    int64_t stream, salt;
    const int64_t* tokens; int64_t count, most;
};

// What is found for a row, `drafted` drafts and then their sources: found[drafted] is the first source.
struct FoundDrafts {
    int64_t drafted, found[2 * kMostDrafts];
};

// The step runs `besides` more tokens; times[n], for n up to known_times, is the time of a step of n tokens. Drafts run
// only where the expected gain is at least the factor `least`.
struct DraftArgs {
    int64_t count, besides;
    const DraftedRow* rows;
    const double* times; int64_t known_times; double least;
    FoundDrafts* found;
};

// An occurrence of a text's last tokens: the place after it, and its length, 0 if there is none.
struct Match {
    int64_t end = 0, length = 0;
};

// Tokens, and for each pair of neighbours where it occurred before.
class TokenIndex {
public:
    int64_t size() const { return static_cast<int64_t>(tokens_.size()); }
    int32_t operator[](int64_t place) const { return tokens_[static_cast<size_t>(place)]; }
    void append(int32_t token);
    // The longest occurrence before the last tokens of these tokens themselves.
    Match of_own_end() const;
    // The longest occurrence of the last tokens of `known`.
    Match of_end(const int64_t* known, int64_t count) const;

private:
    Match longest(const int64_t* known, int64_t count, int32_t place) const;

    std::vector<int32_t> tokens_, before_;
    std::unordered_map<uint64_t, int32_t> last_;
};

// The last texts of a salt and a table of successors, both in two halves: a full newer half replaces the older one.
class Memory {
public:
    void add_text(const int64_t* tokens, int64_t count);
    // The longest occurrence of the last tokens, with the texts that it is in; none that is not longer than `above`.
    std::pair<Match, const TokenIndex*> longest(const int64_t* known, int64_t count, int64_t above) const;
    void learn(int64_t previous, int64_t token, int64_t successor);
    // The last successor, -1 if there is none, and by how many tokens it is known.
    std::pair<int32_t, int64_t> successor(int64_t previous, int64_t token) const;

    // How many streams use it.
    int64_t streams = 0;

private:
    using Table = std::unordered_map<uint64_t, int32_t>;
    static const int32_t* find(const Table& newer, const Table& older, uint64_t key);

    TokenIndex older_texts_, newer_texts_;
    Table older_, newer_;
};

// How often drafts were right, by source and length of the match, as a mean over about the last `memory` drafts.
class Confidence {
public:
    static constexpr int64_t kLengths = 7, kPlaces = 2 * kLengths + 2;
    Confidence(const double* first, double weight, double memory);
    // For successors, the length is the number of tokens by which they are known.
    static int64_t place(Source source, int64_t length);
    const double* values() const { return values_; }
    void learn(int64_t place, bool right);

private:
    double values_[kPlaces], weights_[kPlaces], memory_;
};

struct Draft {
    std::vector<int32_t> tokens;
    std::vector<int64_t> places;
    void clear() { tokens.clear(); places.clear(); }
    void add(int32_t token, int64_t place) { tokens.push_back(token); places.push_back(place); }
    int64_t size() const { return static_cast<int64_t>(tokens.size()); }
};

class Drafter {
public:
    // `remember`: streams of one salt share their texts and successors.
    explicit Drafter(bool remember);
    void draft(const DraftArgs& args);
    // Ends a stream, whose text is remembered; forgets it if no tokens are given.
    void end(int64_t stream, const int64_t* tokens, int64_t count);
    // Forgets what the streams of a salt share; those that run keep it until they end.
    void forget(int64_t salt);
    int64_t streams() const { return static_cast<int64_t>(streams_.size()); }

private:
    struct Stream {
        TokenIndex index;
        Confidence confidence;
        Memory* memory;
        Draft draft;
    };

    Stream& stream(int64_t id, int64_t salt, const int64_t* tokens, int64_t count);
    Memory* memory(int64_t salt);
    void erase(std::unordered_map<int64_t, Stream>::iterator stream);
    void learn(Stream& stream, const int64_t* tokens, int64_t count);
    void extend(Stream& stream, const int64_t* tokens, int64_t count, int64_t most, double least) const;
    void allot(const DraftArgs& args, const std::vector<Stream*>& rows);

    bool remember_;
    Confidence confidence_;
    // By salt, and those that only their streams use. No shared pointers: they need a newer C library.
    std::unordered_map<int64_t, std::unique_ptr<Memory>> memories_;
    std::unordered_map<Memory*, std::unique_ptr<Memory>> apart_;
    std::unordered_map<int64_t, Stream> streams_;
};

}  // namespace decodery
