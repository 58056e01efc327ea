/*
 * Licensed under the Apache License, Version 2.0 (the "License");
 * you may not use this file except in compliance with the License.
 * You may obtain a copy of the License at
 *
 *     http://www.apache.org/licenses/LICENSE-2.0
 *
 * Unless required by applicable law or agreed to in writing, software
 * distributed under the License is distributed on an "AS IS" BASIS,
 * WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
 * See the License for the specific language governing permissions and
 * limitations under the License.
 */
package io.stopover.trino.client;

import com.google.common.hash.Hashing;

/**
 * Rendezvous hashing: of several daemons, the one with the highest score is chosen for a subject.
 * Subjects spread evenly over daemons, all nodes with the same daemons choose the same one, and an
 * added or removed daemon moves only the subjects that it gains or loses.
 */
final class Rendezvous
{
    private Rendezvous() {}

    static long score(String subject, String daemon)
    {
        return Hashing.murmur3_128().newHasher()
                .putInt(subject.length())
                .putUnencodedChars(subject)
                .putUnencodedChars(daemon)
                .hash()
                .asLong();
    }
}
