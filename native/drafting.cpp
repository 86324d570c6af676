#include "drafting.hpp"

#include <algorithm>

namespace decodery {
namespace {

// Of the earlier occurrences of the last two tokens, so many are compared further back.
constexpr int kCompared = 12;
// Between two texts, so that no match goes from one to the next.
constexpr int32_t kBorder = -2;
// Matches of lengths up to these are counted together; the last place is for all longer ones.
constexpr int64_t kUpTo[Confidence::kLengths - 1] = {2, 3, 4, 6, 9, 15};
// What is expected before anything is learned: of matches in the text, in earlier texts, and of successors that are known
// by one token and by two.
constexpr double kFirst[Confidence::kPlaces] = {0.4,  0.5, 0.6, 0.7, 0.8, 0.88, 0.95, 0.35,
                                                0.45, 0.5, 0.6, 0.7, 0.8, 0.9,  0.25, 0.5};
// Of all streams, and of one stream: how many drafts the first values count as, and how many are remembered.
constexpr double kWeight = 4, kMemory = 1000, kOwnWeight = 6, kOwnMemory = 40;

uint64_t pair_of(int64_t first, int64_t second) {
    return static_cast<uint64_t>(first) << 32 | static_cast<uint32_t>(second);
}

uint64_t single_of(int64_t token) { return uint64_t{1} << 63 | static_cast<uint32_t>(token); }

Source source_of(int64_t place) {
    return place < Confidence::kLengths ? kText : place < 2 * Confidence::kLengths ? kEarlierTexts : kSuccessors;
}

// The least probability with which the drafts of one row can gain the factor `least`, in a step of `rows` tokens besides.
// A draft is only reached if those before it are right, so that it gains no more than the first one.
double least_mean_gain(int64_t rows, const DraftArgs& args) {
    double found = 1;
    if (rows > args.known_times) return found;
    const double one = args.least * static_cast<double>(rows) / args.times[rows];
    for (int64_t k = 1; k <= kMostDrafts && rows + k <= args.known_times; k++)
        found = std::min(found, (one * args.times[rows + k] - static_cast<double>(rows)) / static_cast<double>(k));
    return found;
}

}  // namespace

void TokenIndex::append(int32_t token) {
    const int32_t place = static_cast<int32_t>(size());
    int32_t before = -1;
    if (place > 0) {
        const auto [found, added] = last_.try_emplace(pair_of(tokens_.back(), token), place);
        if (!added) before = std::exchange(found->second, place);
    }
    tokens_.push_back(token);
    before_.push_back(before);
}

Match TokenIndex::of_own_end() const {
    Match best;
    int32_t place = before_.empty() ? -1 : before_.back();
    for (int i = 0; i < kCompared && place >= 0; i++, place = before_[static_cast<size_t>(place)]) {
        const int64_t most = std::min<int64_t>(kLongest, place + 1);
        int64_t length = 2;
        while (length < most && (*this)[place - length] == (*this)[size() - 1 - length]) length++;
        if (length > best.length) best = {place + 1, length};
        if (length == kLongest) break;
    }
    return best;
}

Match TokenIndex::of_end(const int64_t* known, int64_t count) const {
    Match best;
    const auto found = last_.find(pair_of(known[count - 2], known[count - 1]));
    int32_t place = found == last_.end() ? -1 : found->second;
    for (int i = 0; i < kCompared && place >= 0; i++, place = before_[static_cast<size_t>(place)]) {
        const int64_t most = std::min({kLongest, place + int64_t{1}, count});
        int64_t length = 2;
        while (length < most && (*this)[place - length] == known[count - 1 - length]) length++;
        if (length > best.length) best = {place + 1, length};
        if (length == kLongest) break;
    }
    return best;
}

void Memory::add_text(const int64_t* tokens, int64_t count) {
    constexpr int64_t half = kMostTokens / 2;
    const int64_t kept = std::min(count, half - 1);
    if (newer_texts_.size() + kept + 1 > half) older_texts_ = std::exchange(newer_texts_, TokenIndex());
    for (int64_t i = count - kept; i < count; i++) newer_texts_.append(static_cast<int32_t>(tokens[i]));
    newer_texts_.append(kBorder);
}

std::pair<Match, const TokenIndex*> Memory::longest(const int64_t* known, int64_t count, int64_t above) const {
    std::pair<Match, const TokenIndex*> best{{}, &newer_texts_};
    for (const TokenIndex* texts : {&newer_texts_, &older_texts_}) {
        if (above == kLongest) break;
        const Match found = texts->of_end(known, count);
        if (found.length <= above) continue;
        above = found.length;
        best = {found, texts};
    }
    return best;
}

void Memory::learn(int64_t previous, int64_t token, int64_t successor) {
    if (static_cast<int64_t>(newer_.size()) + 2 > kMostSuccessors / 2) {
        older_ = std::move(newer_);
        newer_.clear();
    }
    newer_[pair_of(previous, token)] = static_cast<int32_t>(successor);
    newer_[single_of(token)] = static_cast<int32_t>(successor);
}

const int32_t* Memory::find(const Table& newer, const Table& older, uint64_t key) {
    for (const Table* table : {&newer, &older}) {
        const auto found = table->find(key);
        if (found != table->end()) return &found->second;
    }
    return nullptr;
}

std::pair<int32_t, int64_t> Memory::successor(int64_t previous, int64_t token) const {
    if (const int32_t* found = find(newer_, older_, pair_of(previous, token))) return {*found, 2};
    if (const int32_t* found = find(newer_, older_, single_of(token))) return {*found, 1};
    return {-1, 0};
}

Confidence::Confidence(const double* first, double weight, double memory) : memory_(memory) {
    std::copy(first, first + kPlaces, values_);
    std::fill(weights_, weights_ + kPlaces, weight);
}

int64_t Confidence::place(Source source, int64_t length) {
    if (source == kSuccessors) return 2 * kLengths + length - 1;
    int64_t i = 0;
    while (i < kLengths - 1 && length > kUpTo[i]) i++;
    return source * kLengths + i;
}

void Confidence::learn(int64_t place, bool right) {
    weights_[place] = std::min(weights_[place] + 1, memory_);
    values_[place] += ((right ? 1.0 : 0.0) - values_[place]) / weights_[place];
}

Drafter::Drafter(bool remember) : remember_(remember), confidence_(kFirst, kWeight, kMemory) {}

Memory* Drafter::memory(int64_t salt) {
    auto made = std::make_unique<Memory>();
    Memory* found = made.get();
    if (remember_) {
        found = memories_.try_emplace(salt, std::move(made)).first->second.get();
    } else {
        apart_[found] = std::move(made);
    }
    found->streams++;
    return found;
}

void Drafter::forget(int64_t salt) {
    const auto found = memories_.find(salt);
    if (found == memories_.end()) return;
    Memory* memory = found->second.get();
    if (memory->streams) apart_[memory] = std::move(found->second);
    memories_.erase(found);
}

void Drafter::erase(std::unordered_map<int64_t, Stream>::iterator stream) {
    Memory* memory = stream->second.memory;
    streams_.erase(stream);
    if (--memory->streams == 0) apart_.erase(memory);
}

Drafter::Stream& Drafter::stream(int64_t id, int64_t salt, const int64_t* tokens, int64_t count) {
    auto found = streams_.find(id);
    if (found != streams_.end() && found->second.index.size() > count) {
        erase(found);
        found = streams_.end();
    }
    if (found != streams_.end()) {
        learn(found->second, tokens, count);
        return found->second;
    }
    Stream& made = streams_.emplace(id, Stream{{}, Confidence(confidence_.values(), kOwnWeight, kOwnMemory),
                                               memory(salt), {}}).first->second;
    for (int64_t i = 0; i < count; i++) made.index.append(static_cast<int32_t>(tokens[i]));
    return made;
}

// Appends the tokens that came since the last draft, and takes note of whether it was right.
void Drafter::learn(Stream& stream, const int64_t* tokens, int64_t count) {
    const int64_t before = stream.index.size();
    for (int64_t i = 0; i < stream.draft.size() && before + i < count; i++) {
        const auto at = static_cast<size_t>(i);
        const bool right = stream.draft.tokens[at] == tokens[before + i];
        stream.confidence.learn(stream.draft.places[at], right);
        confidence_.learn(stream.draft.places[at], right);
        if (!right) break;
    }
    if (count > before) stream.draft.clear();
    for (int64_t i = before; i < count; i++) {
        if (i >= 2) stream.memory->learn(tokens[i - 2], tokens[i - 1], tokens[i]);
        stream.index.append(static_cast<int32_t>(tokens[i]));
    }
}

// Makes the stream's draft. If its first token is less likely than `least`, it has no other: that one is only compared
// with what comes.
void Drafter::extend(Stream& stream, const int64_t* known, int64_t count, int64_t most, double least) const {
    Draft& draft = stream.draft;
    draft.clear();
    if (most <= 0 || count < 2) return;
    const double* values = stream.confidence.values();
    const TokenIndex* texts = &stream.index;
    Match match = stream.index.of_own_end();
    Source source = kText;
    const auto [earlier, earlier_texts] = stream.memory->longest(known, count, match.length);
    if (earlier.length > match.length) {
        match = earlier;
        texts = earlier_texts;
        source = kEarlierTexts;
    }
    const int64_t by = stream.memory->successor(known[count - 2], known[count - 1]).second;
    if (by && (!match.length || values[Confidence::place(kSuccessors, by)] >
                                    values[Confidence::place(source, match.length)]))
        match.length = 0;
    const auto complete = [&] {
        return draft.size() == most || (draft.size() && values[draft.places[0]] < least);
    };
    for (int64_t j = 0; match.length && !complete(); j++) {
        const int64_t place = match.end + j;
        // A match in the own text goes on with the draft itself.
        if (place >= texts->size() && source != kText) break;
        const int32_t token =
            place < texts->size() ? (*texts)[place] : draft.tokens[static_cast<size_t>(place - texts->size())];
        if (token < 0) break;
        draft.add(token, Confidence::place(source, match.length + j));
    }
    const auto token_before_end = [&](int64_t back) {
        return draft.size() >= back ? draft.tokens[static_cast<size_t>(draft.size() - back)]
                                    : known[count - back + draft.size()];
    };
    while (!complete()) {
        const auto [next, tokens] = stream.memory->successor(token_before_end(2), token_before_end(1));
        if (!tokens) break;
        draft.add(next, Confidence::place(kSuccessors, tokens));
    }
}

// Writes how many of its drafts each row runs, so that the step has the most expected tokens over its time.
void Drafter::allot(const DraftArgs& args, const std::vector<Stream*>& rows) {
    std::vector<std::pair<double, int64_t>> gains;
    for (int64_t i = 0; i < args.count; i++) {
        const Stream& stream = *rows[static_cast<size_t>(i)];
        double reached = 1;
        for (int64_t j = 0; j < std::min(stream.draft.size(), args.rows[i].most); j++) {
            reached *= stream.confidence.values()[stream.draft.places[static_cast<size_t>(j)]];
            gains.emplace_back(reached, i);
        }
    }
    // A row's gains never grow, so that the largest gains are those of its first drafts.
    std::stable_sort(gains.begin(), gains.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
    const int64_t count = args.count + args.besides;
    for (int64_t i = 0; i < args.count; i++) args.found[i].drafted = 0;
    if (count > args.known_times) return;
    double expected = static_cast<double>(count), best = args.least * expected / args.times[count];
    size_t taken = 0;
    for (size_t k = 0; k < gains.size() && count + static_cast<int64_t>(k) < args.known_times; k++) {
        expected += gains[k].first;
        const double rate = expected / args.times[count + static_cast<int64_t>(k) + 1];
        if (rate > best) {
            best = rate;
            taken = k + 1;
        }
    }
    for (size_t k = 0; k < taken; k++) args.found[gains[k].second].drafted++;
}

void Drafter::draft(const DraftArgs& args) {
    const double least = least_mean_gain(args.count + args.besides, args);
    std::vector<Stream*> rows;
    for (int64_t i = 0; i < args.count; i++) {
        const DraftedRow& row = args.rows[i];
        Stream& one = stream(row.stream, row.salt, row.tokens, row.count);
        extend(one, row.tokens, row.count, std::min(row.most, kMostDrafts), least);
        rows.push_back(&one);
    }
    allot(args, rows);
    for (int64_t i = 0; i < args.count; i++) {
        const Draft& draft = rows[static_cast<size_t>(i)]->draft;
        FoundDrafts& found = args.found[i];
        for (int64_t j = 0; j < found.drafted; j++) {
            found.found[j] = draft.tokens[static_cast<size_t>(j)];
            found.found[found.drafted + j] = source_of(draft.places[static_cast<size_t>(j)]);
        }
    }
}

void Drafter::end(int64_t id, const int64_t* tokens, int64_t count) {
    const auto found = streams_.find(id);
    if (found == streams_.end()) return;
    if (count >= found->second.index.size()) {
        learn(found->second, tokens, count);
        if (remember_) found->second.memory->add_text(tokens, count);
    }
    erase(found);
}

}  // namespace decodery
